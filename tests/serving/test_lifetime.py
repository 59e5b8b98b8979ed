"""What a service manager such as systemd hears of a server over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from praxis_mcp.serving.lifetime import ServiceManager
from praxis_mcp.support.logs import logger
from tests.serving.clients import LIMIT, text_of
from tests.serving.http_server import HttpServer, http_client, running_http
from tests.serving.sample_tools import python, write_tool

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="sd_notify is Linux's")]

UPSTREAM = "while [ ! -e '{go}' ]; do sleep 0.05; done"
"""A command that says nothing, and ends when the file is there."""


class Manager(ExitStack):
    def __init__(self, address: str) -> None:
        super().__init__()
        self.socket = self.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.socket.setblocking(False)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.address = address

    async def heard(self, beginning: str) -> str:
        """The next message that begins so."""
        with anyio.fail_after(LIMIT):
            while True:
                await anyio.wait_readable(self.socket)
                text = self.socket.recv(4096).decode()
                if text.startswith(beginning):
                    return text


@asynccontextmanager
async def notifications(directory: Path) -> AsyncIterator[Manager]:
    with Manager(str(directory / "notify")) as manager:
        yield manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    with Manager(str(tmp_path / "notify") if request.param == "path" else f"@praxis-test-{os.getpid()}") as made:
        yield made


async def test_it_is_notified_that_the_server_is_ready_lives_and_ends(sample_directory: Path, manager: Manager) -> None:
    async with running_http(
        sample_directory, "--http", NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="400000"
    ) as server:
        assert f"STATUS=Listening on {server.mcp}" in await manager.heard("READY=1")
        for _ in range(3):
            await manager.heard("WATCHDOG=1")
        server.signal(signal.SIGTERM)
        assert "EXTEND_TIMEOUT_USEC=25000000" in await manager.heard("STOPPING=1")
        assert await server.exit_code() == 0


async def test_no_tool_can_speak_for_the_server(tmp_path: Path) -> None:
    write_tool(tmp_path, "show", python("import os; print(sorted(os.environ))"))
    async with (
        notifications(tmp_path) as notify,
        running_http(tmp_path, "--http", NOTIFY_SOCKET=notify.address) as server,
        Client(streamable_http_client(server.mcp), read_timeout_seconds=LIMIT) as client,
    ):
        assert "NOTIFY_SOCKET" not in text_of(await client.call_tool("show", {}))


@asynccontextmanager
async def with_slow_upstream(directory: Path, manager: Manager) -> AsyncIterator[tuple[HttpServer, Path]]:
    """A server whose only upstream answers nothing until the file is there, and then ends."""
    go = directory / "go"
    upstreams = json.dumps({"slow": {"address": ["sh", "-c", UPSTREAM.format(go=go)]}})
    async with running_http(directory, "--http", PRAXIS_UPSTREAMS=upstreams, NOTIFY_SOCKET=manager.address) as server:
        try:
            yield server, go
        finally:
            go.touch()


async def test_a_server_is_ready_when_its_upstreams_were_asked_once(tmp_path: Path) -> None:
    write_tool(tmp_path, "one", ["true"])
    async with (
        notifications(tmp_path) as notify,
        with_slow_upstream(tmp_path, notify) as (server, go),
        http_client() as client,
    ):
        with anyio.fail_after(LIMIT):
            while "scanned" in (answer := await client.get(server.base + "/ready")).text:
                pass
        assert (answer.status_code, answer.json()) == (503, {"status": "upstreams are being asked for their tools"})
        assert (await client.get(server.base + "/health")).status_code == 200
        go.touch()
        await notify.heard("READY=1")
        assert (await client.get(server.base + "/ready")).json() == {"status": "ready"}


def test_a_hangup_that_nohup_has_it_ignore_stays_ignored() -> None:
    code = "from praxis_mcp.serving.wire import stop_signals; print([int(each) for each in stop_signals()])"
    for trap, expected in (("trap '' HUP", [2, 15]), ("trap - HUP", [2, 15, 1])):
        words = ["sh", "-c", f'{trap}; exec "$0" -c "$1"', sys.executable, code]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        if trap.endswith("'' HUP") or signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            assert json.loads(done.stdout) == expected


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_a_watchdog_is_notified_only_where_it_asks_this_process(
    environment: dict[str, str], interval: float | None
) -> None:
    taken = {"NOTIFY_SOCKET": "/run/notify", **environment}
    assert ServiceManager.take(taken).watchdog == interval
    assert taken == {}, "none of it is left for what the server starts"


def test_without_a_service_manager_nothing_is_sent_and_a_missing_one_costs_nothing(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        manager = ServiceManager.take(environment)
        manager.ready("")
        manager.stopping(1)


def test_a_service_manager_that_is_gone_is_reported_once_until_it_is_back(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    address = str(tmp_path / "notify")
    manager = ServiceManager.take({"NOTIFY_SOCKET": address})
    try:
        for _ in range(3):
            manager.ready("")
        assert [line.split(":")[0] for line in lines] == ["the service manager cannot be reached"]
        with Manager(address):
            manager.ready("")
        manager.ready("")
        assert len(lines) == 2
    finally:
        logger.remove(sink)
