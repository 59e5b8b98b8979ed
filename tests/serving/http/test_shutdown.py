"""A server over HTTP ends when told to, within a bound, whatever clients keep open; and leaves nothing running."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from praxis_mcp.serving.wire import stop_signals
from tests.kit.until import until
from tests.serving.clients import LIMIT, Era, Transport
from tests.serving.http_server import ACCEPT, HttpServer, http_client, initialize_body, running_http
from tests.serving.test_cancel import ended, pid_from

pytestmark = pytest.mark.anyio

LINES: tuple[tuple[Transport, Era], ...] = (("http", "legacy"), ("http", "modern"), ("sse", "legacy"))


def client_on(server: HttpServer, line: tuple[Transport, Era]) -> Client:
    transport, era = line
    streams = sse_client(server.sse) if transport == "sse" else streamable_http_client(server.mcp)
    return Client(streams, mode="legacy" if era == "legacy" else "auto", read_timeout_seconds=LIMIT)


@pytest.mark.parametrize("number", stop_signals())
async def test_open_subscriptions_sessions_and_streams_do_not_keep_it_from_ending(
    sample_directory: Path, number: signal.Signals
) -> None:
    async with (
        running_http(sample_directory, http={"drain": "600"}) as server,  # which nothing of this may wait for
        http_client() as raw,
        client_on(server, ("http", "modern")) as modern,
        modern.listen(tools_list_changed=True) as subscription,
        raw.stream("GET", server.sse),
        raw.stream("POST", server.mcp, json=initialize_body(), headers=ACCEPT) as opened,
        raw.stream("GET", server.mcp, headers={**ACCEPT, "Mcp-Session-Id": opened.headers["mcp-session-id"]}),
    ):
        server.signal(number)
        with anyio.fail_after(LIMIT):
            # The stream ends as the specification has it, by its result: no exception reaches who listens.
            assert [event async for event in subscription] == []
        assert await server.exit_code() == 0
    assert not [line for line in server.log if " ERROR " in line or " WARNING " in line]


@pytest.mark.parametrize("line", LINES, ids="-".join)
async def test_a_running_call_may_end_and_its_answer_arrives(
    sample_directory: Path, tmp_path: Path, line: tuple[Transport, Era]
) -> None:
    async with running_http(sample_directory) as server, client_on(server, line) as client:
        answers: list[bool] = []
        await client.list_tools()  # else the client would ask for it after the answer, of a server that is gone

        async def call() -> None:
            heard = anyio.Event()

            async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                if not heard.is_set():
                    heard.set()
                    server.signal(signal.SIGTERM)

            answers.append((await client.call_tool("chatty", {}, progress_callback=on_progress)).is_error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            assert await server.exit_code() == 0
        assert answers == [False]


@pytest.mark.parametrize("line", LINES, ids="-".join)
async def test_a_call_that_does_not_end_is_cancelled_after_the_drain(
    sample_directory: Path, tmp_path: Path, line: tuple[Transport, Era]
) -> None:
    async with running_http(sample_directory, http={"drain": "0.3"}) as server:
        await cut_off(server, line, tmp_path / "pid", [signal.SIGTERM])


@pytest.mark.parametrize("line", LINES, ids="-".join)
async def test_a_second_signal_cancels_calls_at_once(
    sample_directory: Path, tmp_path: Path, line: tuple[Transport, Era]
) -> None:
    async with running_http(sample_directory, http={"drain": "600"}) as server:
        await cut_off(server, line, tmp_path / "pid", [signal.SIGTERM, signal.SIGINT])


async def cut_off(
    server: HttpServer, line: tuple[Transport, Era], pidfile: Path, signals: list[signal.Signals]
) -> None:
    pid = 0

    async def call(client: Client) -> None:
        with pytest.raises(Exception):  # noqa: B017 - each transport has its own way to say that the server is gone
            await client.call_tool("wait_for_ever", {"pidfile": str(pidfile)})

    with anyio.fail_after(LIMIT):
        try:
            async with client_on(server, line) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(call, client)
                pid = await pid_from(pidfile)
                for number in signals:
                    server.signal(number)
                    await until(lambda number=number: any(number.name in entry for entry in server.log))
                assert await server.exit_code() == 0
                await ended(pid)
                tasks.cancel_scope.cancel()
        except* (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # a client may find at its own end that the server is gone


# Sessions of the older era over Streamable HTTP outlive connections: there a call ends by its own time limit, by
# notifications/cancelled, or with its session.
@pytest.mark.parametrize("line", LINES[1:], ids="-".join)
async def test_a_call_whose_client_is_gone_is_cancelled(
    sample_directory: Path, tmp_path: Path, line: tuple[Transport, Era]
) -> None:
    async with running_http(sample_directory) as server:
        pid = 0
        async with client_on(server, line) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "wait_for_ever", {"pidfile": str(tmp_path / "pid")})
            pid = await pid_from(tmp_path / "pid")
            tasks.cancel_scope.cancel()
        await ended(pid)


async def test_a_client_that_reads_nothing_cannot_keep_it_from_ending(sample_directory: Path) -> None:
    async with running_http(sample_directory, http={"drain": "0.3"}) as server:
        port = int(server.base.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(f"GET /sse HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            await stream.receive()
            server.signal(signal.SIGTERM)
            assert await server.exit_code() == 0
