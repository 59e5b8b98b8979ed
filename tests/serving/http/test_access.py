"""What a caller with valid credentials may see, call and read, in both eras; and that others' runs are not there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from praxis_mcp.serving.mcp.results import META_KEY
from tests.kit.upstreams import http_server
from tests.serving.clients import LIMIT, Era, Transport, text_of
from tests.serving.credentials import ALL, ECHO_ONLY, METRICS, RESOURCE, Issuer, auth_settings
from tests.serving.http_server import HttpServer, http_client, modern_request, running_http
from tests.serving.test_cancel import ended, pid_from

pytestmark = pytest.mark.anyio

LINES: tuple[tuple[Transport, Era], ...] = (("http", "legacy"), ("http", "modern"), ("sse", "legacy"))
CALLS = {"PRAXIS_CALLS__MAX_PER_CALLER": "2", "PRAXIS_CALLS__MAX_RATE_PER_CALLER": "6000"}


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
async def secured(
    anyio_backend: str, issuer: Issuer, sample_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[HttpServer]:
    auth = auth_settings(issuer, tmp_path_factory.mktemp("keys"))
    async with running_http(sample_directory, http={"auth": auth}, port=0, **CALLS) as server:
        yield server


@asynccontextmanager
async def client_on(server: HttpServer, line: tuple[Transport, Era], token: str) -> AsyncIterator[Client]:
    transport, era = line
    mode = "legacy" if era == "legacy" else "auto"
    async with http_client(token) as http:
        if transport == "sse":
            streams = sse_client(server.sse, headers={"Authorization": f"Bearer {token}"})
        else:
            streams = streamable_http_client(server.mcp, http_client=http)
        async with Client(streams, mode=mode, read_timeout_seconds=LIMIT) as client:
            yield client


@pytest.mark.parametrize("line", LINES, ids="-".join)
async def test_only_the_tools_that_a_token_covers_are_listed_and_can_be_called(
    secured: HttpServer, issuer: Issuer, line: tuple[Transport, Era]
) -> None:
    for token in (ECHO_ONLY, issuer.token(scope="tools:ech*"), issuer.token(scope="tools:echo tools:nothing_*")):
        async with client_on(secured, line, token) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["echo"]
            assert text_of(await client.call_tool("echo", {"text": "mine"})) == "mine\n"
    async with client_on(secured, line, issuer.token()) as client:
        assert {"echo", "quiet"} <= {tool.name for tool in (await client.list_tools()).tools}
        assert not (await client.call_tool("quiet", {})).is_error


@pytest.mark.parametrize("tool", ["quiet", "no_such_tool"])
async def test_an_older_client_learns_that_its_token_does_not_cover_a_tool_whether_or_not_there_is_one(
    secured: HttpServer, tool: str
) -> None:
    async with client_on(secured, ("http", "legacy"), ECHO_ONLY) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool(tool, {})
    assert caught.value.code == INVALID_PARAMS
    assert caught.value.message == f'Your credentials do not cover the tool "{tool}".'


async def test_an_unknown_tool_does_not_call_forth_the_names_of_hidden_ones(secured: HttpServer) -> None:
    async with client_on(secured, ("http", "legacy"), ECHO_ONLY) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("echx", {})
    assert caught.value.message == 'There is no tool "echx".'


@pytest.mark.parametrize("tool", ["quiet", "no_such_tool"])
async def test_a_client_of_2026_learns_by_status_which_scope_a_tool_needs(secured: HttpServer, tool: str) -> None:
    body, headers = modern_request("tools/call", {"name": tool, "arguments": {}})
    async with http_client(ECHO_ONLY) as client:
        response = await client.post(secured.mcp, json=body, headers={**headers, "Mcp-Name": tool})
        assert response.status_code == 403
        assert f'scope="tools:{tool}"' in response.headers["www-authenticate"]
        # A header that names another tool than the body, so as to pass: the transport compares them.
        response = await client.post(secured.mcp, json=body, headers={**headers, "Mcp-Name": "echo"})
        assert response.status_code == 400
        assert "error" in response.json()


@pytest.mark.parametrize("line", LINES, ids="-".join)
async def test_a_run_belongs_to_its_caller(secured: HttpServer, issuer: Issuer, line: tuple[Transport, Era]) -> None:
    async with client_on(secured, line, issuer.token()) as client:
        called = await client.call_tool("echo", {"text": "private"})
        assert called.meta is not None
        run = called.meta[META_KEY]["runId"]
        uri = f"praxis://runs/{run}/stdout"
        assert "private" in str((await client.read_resource(uri)).contents[0])
        assert any(run in str(item.uri) for item in (await client.list_resources()).resources)
    # The same person with another client, and with a token that covers less.
    async with client_on(secured, line, issuer.token(client_id="other", scope="tools:echo")) as client:
        assert "private" in str((await client.read_resource(uri)).contents[0])
    for other in (ALL, issuer.token(sub="ben"), issuer.token(sub="", client_id="anna")):
        async with client_on(secured, line, other) as client:
            assert not any(run in str(item.uri) for item in (await client.list_resources()).resources)
            with pytest.raises(MCPError):
                await client.read_resource(uri)


@pytest.fixture(scope="module")
async def with_upstream(
    anyio_backend: str, issuer: Issuer, sample_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[HttpServer]:
    auth = auth_settings(issuer, tmp_path_factory.mktemp("keys"))
    with http_server() as upstream:
        upstreams = json.dumps({"up": {"address": upstream.url("http")}})
        async with running_http(sample_directory, http={"auth": auth}, PRAXIS_UPSTREAMS=upstreams) as server:
            yield server


@pytest.mark.parametrize("line", LINES, ids="-".join)
async def test_a_resource_of_an_upstream_is_read_by_those_only_whose_own_calls_linked_it(
    with_upstream: HttpServer, issuer: Issuer, line: tuple[Transport, Era]
) -> None:
    # A caller of its own for each line: what one was given stays given.
    anna, ben = (issuer.token(sub=f"{name}-{'-'.join(line)}") for name in ("anna", "ben"))
    async with client_on(with_upstream, line, anna) as client:
        (uri,) = (block.uri for block in (await client.call_tool("up_kinds")).content if block.type == "resource_link")
    for other in (ben, ALL):
        async with client_on(with_upstream, line, other) as client:
            with pytest.raises(MCPError, match="No result of a call of yours"):
                await client.read_resource(uri)
    async with client_on(with_upstream, line, anna) as client:
        assert "what was linked" in str((await client.read_resource(uri)).contents)
    narrower = issuer.token(sub=f"anna-{'-'.join(line)}", scope="tools:up_echo")
    async with client_on(with_upstream, line, narrower) as client:
        with pytest.raises(MCPError, match="No result of a call of yours"):
            await client.read_resource(uri)  # the same person, but the tool that linked it is theirs no more
    async with client_on(with_upstream, line, ben) as client:
        await client.call_tool("up_kinds")
        assert "what was linked" in str((await client.read_resource(uri)).contents)


async def test_a_list_that_depends_on_credentials_is_not_a_public_one(secured: HttpServer) -> None:
    async with client_on(secured, ("http", "modern"), ECHO_ONLY) as client:
        assert (await client.list_tools(cache_mode="bypass")).cache_scope == "private"


@pytest.mark.parametrize("line", LINES, ids="-".join)
async def test_one_call_too_many_of_a_caller_is_refused_at_once_and_no_one_elses(
    secured: HttpServer, issuer: Issuer, line: tuple[Transport, Era], tmp_path: Path
) -> None:
    token = issuer.token(sub=f"greedy-{'-'.join(line)}")
    pids: list[int] = []
    async with client_on(secured, line, token) as client, anyio.create_task_group() as tasks:
        for number in range(2):
            pidfile = tmp_path / f"pid{number}"
            tasks.start_soon(client.call_tool, "wait_for_ever", {"pidfile": str(pidfile)})
            pids.append(await pid_from(pidfile))
        with anyio.fail_after(LIMIT):
            refused = await client.call_tool("quiet", {})
        assert refused.is_error
        assert "2 of your calls are running" in text_of(refused)
        async with client_on(secured, line, issuer.token(sub="modest")) as other:
            assert not (await other.call_tool("quiet", {})).is_error
        tasks.cancel_scope.cancel()
    for pid in pids:
        await ended(pid)


async def test_metrics_count_calls_by_tool_engine_and_outcome(secured: HttpServer) -> None:
    async with client_on(secured, ("http", "legacy"), ALL) as client:
        await client.call_tool("fail", {})
        await client.call_tool("echo", {})
        with pytest.raises(MCPError):
            await client.call_tool("no_such_tool", {})
        async with http_client(METRICS) as http:
            response = await http.get(secured.base + "/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = response.text.splitlines()
    assert 'praxis_calls_total{tool="fail",engine="local",outcome="failed"} 1' in lines
    assert 'praxis_calls_total{tool="echo",engine="",outcome="bad_arguments"} 1' in lines
    assert 'praxis_connections{kind="legacy_session"} 1' in lines
    assert "praxis_calls_running 0" in lines
    assert "no_such_tool" not in response.text
    counts = [line for line in lines if line.startswith("praxis_call_duration_seconds")]
    last, total, count = counts[-3:]
    assert last.startswith('praxis_call_duration_seconds_bucket{engine="local",le="+Inf"}')
    assert last.split()[-1] == count.split()[-1]
    assert float(total.split()[-1]) > 0


async def test_what_a_metadata_url_names_is_where_the_metadata_is(secured: HttpServer) -> None:
    async with http_client() as client:
        refused = await client.post(secured.mcp, json={})
        url = refused.headers["www-authenticate"].partition('resource_metadata="')[2].rstrip('"')
        path = "/" + url.split("/", 3)[3]
        assert json.loads((await client.get(secured.base + path)).text)["resource"] == RESOURCE


@asynccontextmanager
async def recording_relay(port: int) -> AsyncIterator[tuple[int, bytearray]]:
    """A port that leads to another, and all that is sent there."""
    sent = bytearray()

    async def pump(source: anyio.abc.SocketStream, target: anyio.abc.SocketStream, record: bytearray | None) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for part in source:
                if record is not None:
                    record += part
                await target.send(part)
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await target.send_eof()

    async def relay(client: anyio.abc.SocketStream) -> None:
        async with client, await anyio.connect_tcp("127.0.0.1", port) as server, anyio.create_task_group() as tasks:
            tasks.start_soon(pump, client, server, sent)
            tasks.start_soon(pump, server, client, None)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, relay)
        yield listener.extra(anyio.abc.SocketAttribute.local_port), sent
        tasks.cancel_scope.cancel()


async def test_a_callers_token_is_never_passed_on_to_an_upstream(
    issuer: Issuer, sample_directory: Path, tmp_path: Path
) -> None:
    auth = auth_settings(issuer, tmp_path)
    async with (
        running_http(sample_directory, "--http") as back,
        recording_relay(int(back.base.rpartition(":")[2])) as (port, sent),
    ):
        upstreams = json.dumps({"back": {"address": f"http://127.0.0.1:{port}/mcp"}})
        async with running_http(sample_directory, http={"auth": auth}, PRAXIS_UPSTREAMS=upstreams) as front:
            for token in (ALL, issuer.token()):
                async with client_on(front, ("http", "modern"), token) as client:
                    names = [tool.name for tool in (await client.list_tools()).tools]
                    (remote,) = (name for name in names if name != "echo" and name.endswith("echo"))
                    assert text_of(await client.call_tool(remote, {"text": "through"})) == "through\n"
                assert b"tools/call" in sent
                assert token.encode() not in sent
                assert b"authorization" not in sent.lower()
