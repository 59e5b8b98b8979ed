"""What no honest server says costs at most the call that it answers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from praxis_mcp.engines.remote import masked_resource, read_answer
from praxis_mcp.errors import ExecutionError, RemoteError
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.support.tasks import BackgroundTasks
from praxis_mcp.upstreams.spec import UpstreamSpec
from praxis_mcp.upstreams.upstream import Upstream
from tests.kit.upstreams import ROOT

pytestmark = pytest.mark.anyio

LIMIT = 60.0
SAID = {"content": [{"type": "text", "text": "said"}]}


@pytest.fixture
async def odd(anyio_backend: str) -> AsyncIterator[Upstream]:
    tasks = BackgroundTasks()
    words = (sys.executable, "-m", "tests.kit.odd_server")
    upstream = Upstream(UpstreamSpec("odd", words, directory=ROOT, hidden=("s3cr3t-value",)), tasks)
    yield upstream
    await upstream.close()
    await tasks.close(LIMIT)


async def say(upstream: Upstream, **told: Any) -> tuple[dict[str, Any], list[tuple[float, float | None, str | None]]]:
    heard: list[tuple[float, float | None, str | None]] = []
    with anyio.fail_after(LIMIT):
        answer = await upstream.call("say", told, timeout=LIMIT, on_progress=lambda *report: heard.append(report))
    return answer, heard


def progress(**params: Any) -> dict[str, Any]:
    return {"method": "notifications/progress", "params": {"progressToken": "TOKEN", **params}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (progress(progress=10**400), []),
        (progress(progress=1, total=10**400), [(1.0, None, None)]),
        (progress(progress=1, progressToken=[1]), []),
        (progress(progress=1, progressToken={"a": 1}), []),
        (progress(progress=True, progressToken=None), []),
        (progress(progress="1"), []),
        ({"id": 10**300, "result": {}}, []),
    ],
    ids=["too large", "total too large", "a list for a token", "an object", "none", "text", "nobody's answer"],
)
async def test_an_odd_message_costs_neither_its_call_nor_the_others(
    odd: Upstream, message: dict[str, Any], expected: list[Any]
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(say, odd)  # is never answered; a connection that breaks would end it by an error
        answer, heard = await say(odd, before=[message], result=SAID)
        assert (answer["content"], heard) == (SAID["content"], expected)
        assert (await say(odd, result=SAID))[0] == answer
        tasks.cancel_scope.cancel()


TEXT = '{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"a%s"}]}}'
DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (TEXT % r"\ud800", "a\ufffd"),
        (TEXT % r"\ud83d\ude00 \udfff", "a\U0001f600 \ufffd"),
        (TEXT.replace('"result":{', f'"result":{{"_meta":{{"n":{DIGITS}}},') % "", "a"),
        ('{"result":{"content":[{"text":"a\\ud800","type":"text"}]},"jsonrpc":"2.0","id":ID}', "a\ufffd"),
    ],
    ids=["half a pair", "half a pair behind a whole one", "thousands of digits", "the id at the end"],
)
async def test_what_only_a_strict_reader_refuses_is_read(odd: Upstream, raw: str, said: str) -> None:
    assert (await say(odd, raw=raw))[0]["content"][0]["text"] == said


@pytest.mark.parametrize(
    "raw",
    [
        '{"jsonrpc":"2.0","id":ID,"result":"text"}',
        '{"jsonrpc":"2.0","id":ID,"result":null}',
        '{"jsonrpc":"2.0","id":ID,"result":[]}',
        '{"jsonrpc":"2.0","id":ID,"error":"text"}',
        '{"jsonrpc":"2.0","id":ID,"result":{"content":' + "[" * 5000 + "]" * 5000 + "}}",
        '{"jsonrpc":"2.0","id":ID,"result":{"content":' + "[" * 300 + "]" * 300 + "}}",
        '{"result":{"content":[}},"jsonrpc":"2.0","id":ID}',
    ],
)
async def test_an_answer_that_cannot_be_read_is_an_error_of_its_call_at_once(odd: Upstream, raw: str) -> None:
    with pytest.raises(RemoteError, match="its answer cannot be read"):
        await say(odd, raw=raw)
    assert (await say(odd, result=SAID))[0]["content"] == SAID["content"]


@pytest.mark.parametrize("code", [True, 10**30, 1.0])
async def test_an_odd_code_of_an_error_is_an_error_of_that_call(odd: Upstream, code: Any) -> None:
    with pytest.raises(ExecutionError, match="odd answered: x"):
        await say(odd, error={"code": code, "message": "x"})
    assert (await say(odd, result=SAID))[0]["content"] == SAID["content"]


@pytest.mark.parametrize("meta", [["x"], "x", 7, None])
def test_what_is_not_a_meta_object_is_left_out(meta: Any) -> None:
    assert read_answer({**SAID, "_meta": meta}, Masker(())).meta == {}


async def test_secrets_are_masked_in_all_that_an_error_holds(odd: Upstream) -> None:
    data = {"sent": ["Bearer s3cr3t-value"], "s3cr3t-value": 1}
    with pytest.raises(RemoteError) as caught:
        await say(odd, error={"code": -32050, "message": "bad s3cr3t-value", "data": data})
    assert caught.value.message == "odd answered: bad ***"
    assert caught.value.data == {"sent": ["Bearer ***"], "***": 1}


def test_secrets_are_masked_in_all_of_a_resource_but_its_bytes() -> None:
    blob = "QUJDREVG"
    contents = {"uri": f"note://{blob}", "blob": blob, "_meta": {"a": blob}}
    assert masked_resource(contents, Masker((blob,))) == {"uri": "note://***", "blob": blob, "_meta": {"a": "***"}}
