"""Whose a name is, and when the tools of slow upstreams come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ToolListChangedNotification
from starlette.responses import JSONResponse

from praxis_mcp.federation import upstreams as upstream_names
from praxis_mcp.federation import upstreams as upstreams_module
from praxis_mcp.federation.upstreams import Owners, refusals
from praxis_mcp.settings.sections import UpstreamSettings
from tests.federation.test_upstreams import STARTING, asked, call, names, proxy
from tests.kit.raw_upstream import RawUpstream, answer, raw_upstream, text
from tests.kit.until import until
from tests.serving.clients import ERAS, Era, memory_client, open_server, settings_for, text_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(anyio_backend: str) -> AsyncIterator[tuple[RawUpstream, RawUpstream]]:
    """Two upstreams that say which one answers."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(raw_upstream()) for _ in range(2)]
        for number, server in enumerate(found):
            said = text(f"answered by {number}")
            server.answers["tools/call"] = lambda m, said=said: JSONResponse(answer(m, result=said))
        yield found[0], found[1]


def lists(server: RawUpstream, *tools: str) -> None:
    found = [{"name": name, "inputSchema": {"type": "object"}} for name in tools]
    server.answers["tools/list"] = lambda m: JSONResponse(answer(m, result={"tools": found}))


def settings(**prefixes: str | dict[str, Any] | None) -> dict[str, UpstreamSettings]:
    return {
        name: UpstreamSettings.model_validate(
            {"address": ["x"], **(fields if isinstance(fields, dict) else {"prefix": fields})}
        )
        for name, fields in prefixes.items()
    }


@pytest.mark.parametrize(
    ("upstreams", "refused"),
    [
        (settings(git=None, git_hub=None), ["git"]),
        (settings(git=None, github=None), []),
        (settings(a="x_", b="x_"), []),
        (settings(a="x", b="x_", c="x_y"), ["a", "b"]),
        (settings(a="", b=None), ["a"]),
        (settings(a="", b=""), []),
        (settings(a={"prefix": "", "include": ["search", "fetch"]}, b=None), []),
        (settings(a={"prefix": "", "include": ["search", "b_push"]}, b=None), ["a"]),
        (settings(a={"prefix": "", "include": ["b*"]}, b=None), ["a"]),
        (settings(a={"prefix": "", "include": ["c*"]}, b=None), []),
        (settings(a={"prefix": "", "include": ["[ab]"]}, b=None), ["a"]),
        (settings(a={"prefix": "", "include": ["x"], "rename": {"x": "b_push"}}, b=None), ["a"]),
        (settings(a={"prefix": "", "include": ["b_push"], "rename": {"b_push": "push"}}, b=None), []),
    ],
)
def test_an_upstream_whose_prefix_begins_anothers_is_refused_unless_it_cannot_have_such_names(
    upstreams: dict[str, UpstreamSettings], refused: list[str]
) -> None:
    assert list(refusals(upstreams)) == refused


async def test_a_refused_upstream_costs_no_other_and_says_how_to_fix_it(
    tmp_path: Path, pair: tuple[RawUpstream, RawUpstream]
) -> None:
    lists(pair[0], "hub_push", "other")
    lists(pair[1], "push")
    upstreams: dict[str, Any] = {"git": {"address": pair[0].url}, "git_hub": {"address": pair[1].url}}
    async with proxy(tmp_path, **upstreams) as (client, toolbox):
        assert await names(client) == ["git_hub_push"]
        assert text_of(await call(client, "git_hub_push")) == "answered by 1"
        reports = {report.name: report for report in toolbox.upstreams.reports()}
        assert "'git_' begins 'git_hub_'" in reports["git"].trouble
        assert "upstreams.git.prefix or upstreams.git_hub.prefix" in reports["git"].trouble
        assert reports["git_hub"].trouble == ""
    assert pair[0].seen == [], "it was not even connected to"
    upstreams["git"]["prefix"] = "git-"  # as the message says
    async with proxy(tmp_path, **upstreams) as (client, _):
        assert await names(client) == ["git-hub_push", "git-other", "git_hub_push"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_name_stays_with_the_upstream_that_has_it(
    tmp_path: Path, pair: tuple[RawUpstream, RawUpstream], era: Era
) -> None:
    lists(pair[0], "other")
    lists(pair[1], "push")
    shared: dict[str, Any] = {
        "a": {"address": pair[0].url, "prefix": "x_", "refresh": 1},
        "b": {"address": pair[1].url, "prefix": "x_", "refresh": 1},
    }
    async with proxy(tmp_path, era, **shared) as (client, toolbox):
        assert await names(client) == ["x_other", "x_push"]
        lists(pair[0], "other", "push")
        left_out = await until(lambda: dict(toolbox.upstreams.reports()[0].left_out))
        assert left_out == {"push": "the name x_push belongs to the upstream b, which had it first"}
        assert text_of(await call(client, "x_push")) == "answered by 1", "though a comes first"
        lists(pair[1])
        await until(lambda: toolbox.upstreams.served("x_push") is None)
        assert await names(client) == ["x_other"], "it is gone, and not another's"
        with pytest.raises(MCPError, match="no tool"):
            await call(client, "x_push")
        lists(pair[1], "push")
        await until(lambda: toolbox.upstreams.served("x_push"))
        assert text_of(await call(client, "x_push")) == "answered by 1"


async def test_whose_a_name_is_does_not_depend_on_who_starts_faster(
    tmp_path: Path, pair: tuple[RawUpstream, RawUpstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams_module, "FIRST_LIST", 0.0)
    gate = pair[0].gates["tools/list"] = anyio.Event()
    lists(pair[0], "same")
    lists(pair[1], "same", "more")
    shared = {"a": {"address": pair[0].url, "prefix": ""}, "b": {"address": pair[1].url, "prefix": ""}}
    async with (
        open_server(settings_for(tmp_path, upstreams=shared)) as (toolbox, server),
        memory_client(server, "modern") as client,
    ):
        await until(lambda: toolbox.upstreams.reports()[1].attempted)
        assert await names(client) == []
        gate.set()
        await asked(toolbox)
        await until(lambda: toolbox.upstreams.served("more"))
        assert text_of(await call(client, "same")) == "answered by 0"


def test_names_that_are_no_longer_listed_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_names, "MOST_OWNED", 3)
    owners = Owners({"a": "", "b": ""})
    for number in range(5):
        owners.claim(f"t{number}", "b")
    owners.forget({("t0", "b")})
    assert [owners.claim(f"t{number}", "a") for number in range(5)] == ["b", "a", "b", "b", "b"]


@pytest.mark.parametrize("era", ERAS)
async def test_tools_of_a_slow_upstream_are_announced_as_soon_as_they_come(
    tmp_path: Path, pair: tuple[RawUpstream, RawUpstream], monkeypatch: pytest.MonkeyPatch, era: Era
) -> None:
    monkeypatch.setattr(upstreams_module, "FIRST_LIST", 0.0)
    gate = pair[0].gates["tools/list"] = anyio.Event()
    heard = anyio.Event()

    async def hear(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            heard.set()

    upstreams = {"slow": {"address": pair[0].url}, "quick": {"address": pair[1].url}}
    async with (
        open_server(settings_for(tmp_path, upstreams=upstreams)) as (toolbox, server),
        memory_client(server, era, message_handler=hear) as client,
        anyio.create_task_group() as tasks,
    ):
        await until(lambda: toolbox.upstreams.served("quick_t"))
        assert await names(client) == ["quick_t"], "the list waits for nobody for ever"
        if era == "modern":
            listening = anyio.Event()

            async def listen() -> None:
                async with client.listen(tools_list_changed=True) as events:
                    listening.set()
                    async for _ in events:
                        heard.set()

            tasks.start_soon(listen)
            await listening.wait()
        heard = anyio.Event()
        gate.set()
        with anyio.fail_after(STARTING):
            await heard.wait()
        assert await names(client) == ["quick_t", "slow_t"]
        tasks.cancel_scope.cancel()


async def test_a_call_waits_for_the_upstream_that_may_have_the_tool_and_for_no_other(
    tmp_path: Path, pair: tuple[RawUpstream, RawUpstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams_module, "FIRST_LIST", 0.0)
    gate = pair[0].gates["tools/list"] = anyio.Event()
    upstreams = {"slow": {"address": pair[0].url}, "quick": {"address": pair[1].url}}
    results: list[str] = []
    async with (
        open_server(settings_for(tmp_path, upstreams=upstreams)) as (_, server),
        memory_client(server, "modern") as client,
        anyio.create_task_group() as tasks,
    ):

        async def early() -> None:
            results.append(text_of(await call(client, "slow_t")))

        tasks.start_soon(early)
        assert text_of(await call(client, "quick_t")) == "answered by 1"
        with pytest.raises(MCPError, match="no tool"):
            await call(client, "quick_none")
        assert results == []
        gate.set()
    assert results == ["answered by 0"]
