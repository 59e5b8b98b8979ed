"""Answers and refusals over HTTP as servers really send them: odd ids, odd bodies, sessions that are lost."""

import json
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx2
import pytest
from starlette.responses import JSONResponse, Response

from praxis_mcp.errors import EngineUnavailable, ExecutionError, RemoteError
from praxis_mcp.upstreams.spec import UpstreamSpec
from praxis_mcp.upstreams.transports.answers import ReadableEvents, WithoutMark
from praxis_mcp.upstreams.upstream import Upstream, UpstreamPool
from tests.kit.raw_upstream import ABOUT, Message, RawUpstream, answer, raw_sse_upstream, raw_upstream, text

pytestmark = pytest.mark.anyio

LIMIT = 60.0
"""Seconds for a step; a call that waits for its whole timeout takes longer."""
CALL = 120.0
BOM = "\N{BYTE ORDER MARK}"


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[RawUpstream]:
    async with raw_upstream() as found:
        yield found


@pytest.fixture
async def upstream(server: RawUpstream) -> AsyncIterator[Upstream]:
    pool = UpstreamPool()
    try:
        yield pool.get(UpstreamSpec("the server", server.url))
    finally:
        await pool.close()


async def call(upstream: Upstream, **arguments: Any) -> str:
    with anyio.fail_after(LIMIT):
        result = await upstream.call("t", arguments, timeout=CALL)
    return result["content"][0]["text"]


def raw(body: bytes | str, kind: str | None = "application/json", status: int = 200) -> Response:
    return Response(body, status_code=status, headers={"content-type": kind} if kind else {})


def events(body: str, kind: str = "text/event-stream") -> Response:
    return raw(body, kind)


def data(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message)}\n\n"


FINE = text("fine")


@pytest.mark.parametrize(
    "respond",
    [
        lambda m: raw(json.dumps({**answer(m, result=FINE), "id": "xxx"})),
        lambda m: raw(json.dumps({**answer(m, result=FINE), "id": None})),
        lambda m: raw(json.dumps({**answer(m, result=FINE), "id": str(m["id"])})),
        lambda m: raw(json.dumps({**answer(m, result=FINE), "id": float(m["id"])})),
        lambda m: raw(json.dumps({**answer(m, result=FINE), "id": m["id"] + 1})),
        lambda m: raw(json.dumps({"jsonrpc": "2.0", "result": FINE})),
        lambda m: raw(json.dumps({"id": m["id"], "result": FINE})),
        lambda m: raw(json.dumps({"result": FINE, "jsonrpc": "2.0", "id": m["id"]}, indent=1)),
        lambda m: raw(json.dumps([{"jsonrpc": "2.0", "method": "notifications/x"}, answer(m, result=FINE)])),
        lambda m: raw(BOM + json.dumps(answer(m, result=FINE))),
        lambda m: raw(json.dumps(answer(m, result={**FINE, "_meta": {"half": "\ud800"}}), separators=(",", ":"))),
        lambda m: events(data(answer(m, result={**FINE, "_meta": {"half": "\ud800"}}))),
        lambda m: raw(json.dumps(answer(m, result=FINE)), "Application/JSON; charset=utf-8"),
        lambda m: raw(json.dumps(answer(m, result=FINE)), "text/plain"),
        lambda m: raw(json.dumps(answer(m, result=FINE)), None),
        lambda m: events(data({**answer(m, result=FINE), "id": 98765})),
        lambda m: events(BOM + data(answer(m, result=FINE))),
        lambda m: events(BOM + ": hello\n\n" + data(answer(m, result=FINE)), 'Text/Event-Stream; charset="utf-8"'),
        lambda m: events(data(answer(m, result=FINE)), "text/event-stream;charset=utf-16"),
        lambda m: events(2 * data(answer(m, result=FINE))),
    ],
    ids=[
        "another id", "null", "text", "fraction", "another number", "no id", "no version", "id last", "batch", "BOM",
        "half a pair", "events: half a pair",
        "type with charset", "text/plain", "no type", "events: another id", "events: BOM", "events: BOM and charset",
        "events: wrong charset", "events: twice",
    ],
)  # fmt: skip
async def test_the_response_to_a_post_is_its_answer_whatever_its_id_and_its_type(
    server: RawUpstream, upstream: Upstream, respond: Callable[[Message], Response]
) -> None:
    server.answers["tools/call"] = respond
    assert await call(upstream) == "fine"
    assert await call(upstream) == "fine"
    assert server.begun == 1, "it costs no session"


async def test_a_number_that_is_not_finite_does_not_become_null_where_an_answer_is_written_again(
    server: RawUpstream, upstream: Upstream
) -> None:
    odd = {"id": "xxx", "result": {**FINE, "structuredContent": {"a": math.inf}}}
    server.answers["tools/call"] = lambda m: raw(json.dumps({**answer(m), **odd}))
    with anyio.fail_after(LIMIT):
        assert (await upstream.call("t", {}, timeout=CALL))["structuredContent"] == {"a": math.inf}


@pytest.mark.parametrize(
    ("respond", "code", "problem"),
    [
        (lambda m: raw(json.dumps({"id": "x", "jsonrpc": "2.0", "error": {"code": 7, "message": "no"}})), 7, "no"),
        (lambda m: raw(json.dumps({"id": None, "error": {"code": 7, "message": "no"}})), 7, "no"),
        (lambda m: raw(json.dumps(answer(m, error="just text"))), -32603, "just text"),
        (lambda m: raw(json.dumps(answer(m, error={"code": "E42", "message": None}))), -32603, "E42"),
        (lambda m: raw(json.dumps(answer(m, result={}, error={"code": 7, "message": "no"}))), 7, "no"),
        (lambda m: raw(b""), -32700, "HTTP 200 without a body"),
        (lambda m: raw(b"", None, 202), -32700, "HTTP 202 without a body"),
        (lambda m: raw(b"", None, 204), -32700, "HTTP 204 without a body"),
        (lambda m: raw("[]"), -32700, "not a JSON-RPC message, but JSON: \\[\\]"),
        (lambda m: raw('{"jsonrpc": "2.0", "id": 1, "resu'), -32700, "not a JSON-RPC message"),
        (lambda m: raw(json.dumps(answer(m, method="ping"))), -32700, "not a JSON-RPC message"),
        (lambda m: raw("<html><p>Sign in</html>", "text/html; charset=utf-8"), -32700, "but text/html$"),
        (lambda m: raw('{"error": "Too large a body"}', status=500), -32603, "HTTP 500 .*: Too large a body"),
    ],
)  # fmt: skip
async def test_what_is_not_an_answer_is_an_error_at_once_that_says_what_came(
    server: RawUpstream, upstream: Upstream, respond: Callable[[Message], Response], code: int, problem: str
) -> None:
    server.answers["tools/call"] = respond
    with pytest.raises(RemoteError, match=problem) as caught:
        await call(upstream)
    assert caught.value.code == code
    del server.answers["tools/call"]
    assert await call(upstream) == "fine"
    assert server.begun == 1


async def test_lists_are_answered_under_any_id_as_calls_are(server: RawUpstream, upstream: Upstream) -> None:
    tools = {"tools": [{"name": "a", "inputSchema": {}}]}
    for respond in (
        lambda m: raw(json.dumps({**answer(m, result=tools), "id": "xxx"})),
        lambda m: raw(json.dumps({**answer(m, result=tools), "id": str(m["id"])})),
        lambda m: events(BOM + data(answer(m, result=tools))),
    ):
        server.answers["tools/list"] = respond
        with anyio.fail_after(LIMIT):
            assert [tool["name"] for tool in (await upstream.list_tools()).tools] == ["a"]
    assert server.begun == 1


async def test_a_byte_order_mark_is_taken_off_however_its_bytes_are_cut() -> None:
    async def stripped(*pieces: bytes) -> bytes:
        class Body:
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for piece in pieces:
                    yield piece

        return b"".join([piece async for piece in WithoutMark(Body())])  # pyright: ignore[reportArgumentType]

    mark = b"\xef\xbb\xbf"
    assert await stripped(mark[:1], mark[1:2], mark[2:] + b"a", b"b") == b"ab"
    assert await stripped(mark + b"a", mark + b"b") == b"a" + mark + b"b"
    assert await stripped(b"a", b"b") == b"ab"
    assert await stripped(mark[:2]) == mark[:2]
    assert await stripped(mark) == b""


LOST: dict[str, Callable[[Message], Response]] = {
    "words": lambda m: raw('{"error": "Bad Request: No valid session ID provided"}', status=400),
    "no id": lambda m: raw('{"jsonrpc": "2.0", "error": {"code": -32000, "message": "No valid session"}}', status=400),
    "foreign id": lambda m: raw(
        '{"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "No valid session"}}', status=400
    ),
    "own id": lambda m: raw(json.dumps(answer(m, error={"code": -32000, "message": "No valid session"})), status=400),
    "plain": lambda m: raw("No valid session", "text/plain", 400),
    "empty": lambda m: raw(b"", None, 400),
    "gone": lambda m: raw("No valid session", "text/plain", 410),
    "other caller": lambda m: raw("No valid session", "text/plain", 403),
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
async def test_a_session_that_any_4xx_shows_to_be_lost_is_begun_again(
    server: RawUpstream, upstream: Upstream, lost: Callable[[Message], Response]
) -> None:
    server.lost = lost
    assert await call(upstream, n=1) == "fine"
    server.sessions.clear()
    with pytest.raises(ExecutionError, match=r"does not know the session any more.*was not run again") as caught:
        await call(upstream, n=2)
    assert "valid session" in str(caught.value) or "HTTP 400" in str(caught.value)
    assert await call(upstream, n=3) == "fine"
    assert (server.begun, server.calls) == (2, [{"n": 1}, {"n": 3}])


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
async def test_a_list_that_meets_a_lost_session_is_asked_for_again_in_a_new_one(
    server: RawUpstream, upstream: Upstream, lost: Callable[[Message], Response]
) -> None:
    server.lost = lost
    assert await call(upstream) == "fine"
    server.sessions.clear()
    with anyio.fail_after(LIMIT):
        assert [tool["name"] for tool in (await upstream.list_tools()).tools] == ["t"]
    assert server.begun == 2


@pytest.mark.parametrize(
    "body",
    [b"", b"Session not found", b'{"jsonrpc": "2.0", "id": "server-error", "error": {"code": 1, "message": ""}}'],
)
async def test_404_says_that_the_session_is_lost_and_nothing_ran_so_the_call_is_sent_again(
    server: RawUpstream, upstream: Upstream, body: bytes
) -> None:
    server.lost = lambda m: raw(body, "application/json" if body.startswith(b"{") else "text/plain", 404)
    assert await call(upstream, n=1) == "fine"
    server.sessions.clear()
    assert await call(upstream, n=2) == "fine"
    assert (server.begun, server.calls) == (2, [{"n": 1}, {"n": 2}])


async def test_a_tool_that_ran_and_lost_the_session_is_not_run_twice(server: RawUpstream, upstream: Upstream) -> None:
    def run(message: Message) -> Response:
        server.calls.append(message["params"]["arguments"])
        server.sessions.clear()
        return LOST["no id"](message)

    server.lost = LOST["no id"]
    server.answers["tools/call"] = run
    with pytest.raises(ExecutionError, match="may have run"):
        await call(upstream, n=1)
    assert server.calls == [{"n": 1}]


async def test_a_request_that_is_refused_in_a_session_that_lives_costs_neither_the_session_nor_the_servers_words(
    server: RawUpstream, upstream: Upstream
) -> None:
    server.lost = LOST["no id"]
    error = {"code": -32602, "message": "n is too large", "data": {"most": 3}}
    server.answers["tools/call"] = lambda m: JSONResponse(answer(m, error=error), status_code=400)
    for _ in range(3):
        with pytest.raises(RemoteError, match="n is too large") as caught:
            await call(upstream, n=4)
        assert (caught.value.code, caught.value.data) == (-32602, {"most": 3})
    server.answers["tools/call"] = lambda m: raw('{"error": "n is too large"}', status=422)
    with pytest.raises(RemoteError, match=r"HTTP 422 .*: n is too large"):
        await call(upstream, n=4)
    assert server.begun == 1


async def test_an_unknown_method_by_404_is_not_a_lost_session(server: RawUpstream, upstream: Upstream) -> None:
    server.lost = LOST["no id"]
    error = {"code": -32601, "message": "Method not found"}
    server.answers["resources/read"] = lambda m: JSONResponse(answer(m, error=error), status_code=404)
    assert await call(upstream) == "fine"
    with anyio.fail_after(LIMIT), pytest.raises(RemoteError, match="Method not found"):
        await upstream.read_resource("x://y", timeout=CALL)
    assert server.begun == 1


async def test_a_server_that_never_takes_a_session_is_asked_for_one_twice_and_no_more(
    server: RawUpstream, upstream: Upstream
) -> None:
    server.lost = LOST["words"]
    server.answers["initialize"] = lambda m: JSONResponse(answer(m, result=ABOUT), headers={"Mcp-Session-Id": "no"})
    with anyio.fail_after(LIMIT), pytest.raises(EngineUnavailable, match="does not know the session"):
        await upstream.list_tools()
    assert server.seen.count("initialize") == 2


async def test_a_list_that_fails_begins_a_new_session_once_and_not_again_before_one_has_come(
    server: RawUpstream, upstream: Upstream
) -> None:
    broken = {"code": -32603, "message": "the cache of this session is broken"}

    def listing(message: Message) -> Response | None:
        return JSONResponse(answer(message, error=broken)) if server.begun == 1 else None

    server.answers["tools/list"] = listing
    with anyio.fail_after(LIMIT):
        await upstream.connect()
        assert [tool["name"] for tool in (await upstream.list_tools()).tools] == ["t"]
        assert server.begun == 2
        server.answers["tools/list"] = lambda m: JSONResponse(answer(m, error=broken))
        for _ in range(3):
            with pytest.raises(RemoteError, match="broken"):
                await upstream.list_tools()
        assert server.begun == 3
        del server.answers["tools/list"]
        await upstream.list_tools()
    assert server.begun == 3


async def test_an_error_without_an_id_keeps_its_message_while_connecting_too(
    server: RawUpstream, upstream: Upstream
) -> None:
    server.answers["initialize"] = lambda m: raw(
        '{"error": {"code": -32000, "message": "licence expired"}}', status=400
    )
    with pytest.raises(EngineUnavailable, match="licence expired"):
        await call(upstream)


async def test_a_session_of_the_older_transport_that_any_4xx_shows_to_be_lost_is_begun_again(
    anyio_backend: str,
) -> None:
    pool = UpstreamPool()
    async with raw_sse_upstream() as server:
        upstream = pool.get(UpstreamSpec("the server", server.url))
        assert await call(upstream, n=1) == "fine"
        server.forget()
        with pytest.raises(ExecutionError, match=r"No transport for that session.*was not run again"):
            await call(upstream, n=2)
        assert await call(upstream, n=3) == "fine"
        server.forget()
        with anyio.fail_after(LIMIT):
            assert [tool["name"] for tool in (await upstream.list_tools()).tools] == ["t"]
        assert server.calls == [{"n": 1}, {"n": 3}]
        await pool.close()


def pages(server: RawUpstream, *listed: tuple[list[str], Any]) -> list[Any]:
    """Have the server list these pages of names, each with the cursor of the next; the cursors that it is asked for."""
    asked: list[Any] = []

    def page(message: Message) -> Response:
        asked.append((message.get("params") or {}).get("cursor"))
        names, cursor = listed[min(len(asked), len(listed)) - 1]
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
        return JSONResponse(answer(message, result={"tools": tools, "nextCursor": cursor}))

    server.answers["tools/list"] = page
    return asked


@pytest.mark.parametrize(
    ("listed", "expected", "asked", "remark"),
    [
        ([(["a"], "")], "a", [None], ""),
        ([(["a"], None)], "a", [None], ""),
        ([(["a"], "1"), (["b"], "2"), (["c"], None)], "abc", [None, "1", "2"], ""),
        ([(["a"], 7), (["b"], None)], "a", [None], "not text"),
        ([(["a"], "same")], "aa", [None, "same"], "circle"),
        ([(["a"], "1"), (["b"], "2"), (["c"], "1"), (["d"], "2")], "abc", [None, "1", "2"], "circle"),
    ],
    ids=["an empty cursor", "null", "three pages", "a number", "a cursor that stands", "cursors that turn"],
)
async def test_an_empty_cursor_ends_a_list_and_one_that_repeats_is_not_followed_again(
    server: RawUpstream, upstream: Upstream, listed: Any, expected: str, asked: list[Any], remark: str
) -> None:
    seen = pages(server, *listed)
    with anyio.fail_after(LIMIT):
        found = await upstream.list_tools()
    assert "".join(tool["name"] for tool in found.tools) == expected
    assert seen == asked
    assert remark in found.remark


async def test_pages_without_end_are_bounded_and_said(server: RawUpstream, upstream: Upstream) -> None:
    def page(message: Message) -> Response:
        number = len(server.seen)
        tools = [{"name": f"t{number}", "inputSchema": {"type": "object"}}]
        return JSONResponse(answer(message, result={"tools": tools, "nextCursor": str(number)}))

    server.answers["tools/list"] = page
    with anyio.fail_after(LIMIT):
        found = await upstream.list_tools()
    assert len(found.tools) == 100
    assert "more than 100 pages" in found.remark


async def test_what_no_client_can_use_of_a_list_is_named_with_its_reason(
    server: RawUpstream, upstream: Upstream
) -> None:
    odd = [{"name": "good"}, {"name": 7}, {"description": "nameless"}, "bare", None, {"name": ["a"]}]
    server.answers["tools/list"] = lambda m: JSONResponse(answer(m, result={"tools": odd}))
    with anyio.fail_after(LIMIT):
        found = await upstream.list_tools()
    assert [tool["name"] for tool in found.tools] == ["good"]
    assert found.left_out == [
        ("7", "its name is missing, or not text"),
        ("(no name)", "its name is missing, or not text"),
        ("bare", "it is not an object"),
        ("(no name)", "it is not an object"),
        ("['a']", "its name is missing, or not text"),
    ]


class Pieces(httpx2.AsyncByteStream):
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


async def test_events_are_rewritten_where_the_sdk_could_not_read_them_wherever_their_pieces_end() -> None:
    body = (
        b'event: message\r\ndata: {"a": "\\ud83d\\ude00"}\n\n'
        b'data: {"a": "x\\ud800"}\r\n\ndata: not \\ud800 JSON\n\ndata: 1'
    )
    expected = body.replace(b'"x\\ud800"}\r', b'"x\\ufffd"}')
    for size in (1, 3, 7, len(body)):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        assert b"".join([piece async for piece in ReadableEvents(Pieces(*pieces))]) == expected
    whole = b"data: " + b"x" * (9 * 1024 * 1024)
    pieces = [whole[start : start + 65536] for start in range(0, len(whole), 65536)]
    assert b"".join([piece async for piece in ReadableEvents(Pieces(*pieces))]) == whole
