"""Clients of both eras, by SDKs that share no code of ours, over nginx and servers that come and go behind it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from praxis_mcp.serving.access import hash_token
from tests.deploy.balancer import balancer, runs_a_call
from tests.kit import mcp1, requirements
from tests.kit.environments import PackageUnavailable
from tests.kit.ports import held_port
from tests.kit.postgres import shared_server
from tests.kit.tasks import TasksExtension, request
from tests.kit.until import until
from tests.serving.clients import LIMIT
from tests.serving.http.test_drain import held_call
from tests.serving.http_server import http_client, running_http
from tests.serving.sample_tools import python, write_tool
from tests.serving.tasks.test_fastmcp import run
from tests.serving.tasks.tools import GATE, WAITS, write_task_tools

pytestmark = [pytest.mark.anyio, pytest.mark.nginx]

ADA, BOB = "praxis_ada", "praxis_bob"
HTTP: dict[str, Any] = {
    "auth": {
        "tokens": {
            name: {"sha256": hash_token(token), "scopes": ["tools:*", "metrics:read"]}
            for name, token in (("ada", ADA), ("bob", BOB))
        }
    },
    "drain": "600",
}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    directory.mkdir()
    write_task_tools(directory)
    write_tool(directory, "holds", python(WAITS), parameters=GATE)
    write_tool(directory, "who", ["sh", "-c", "echo $WHICH"], env_passthrough=["WHICH"])
    return directory


@pytest.fixture
def shared(tmp_path: Path) -> dict[str, str]:
    """What servers have in common that share a database. (And a directory, so that one on this machine that was killed
    is known to be gone at once.)"""
    return {"PRAXIS_RECORDS__URL": shared_server().database(), "PRAXIS_RECORDS__DIRECTORY": str(tmp_path / "records")}


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    with held_port() as one, held_port() as two:
        yield one, two


@asynccontextmanager
async def client_of(address: str, token: str) -> AsyncIterator[Client]:
    async with http_client(token) as http:
        line = streamable_http_client(f"{address}/mcp", http_client=http)
        async with Client(line, read_timeout_seconds=LIMIT, extensions=[TasksExtension()]) as client:
            yield client


@pytest.mark.postgres
@pytest.mark.fastmcp
async def test_a_task_is_followed_updated_and_cancelled_wherever_a_balancer_sends_each_request_through_a_restart(
    tools: Path, tmp_path: Path, shared: dict[str, Any], ports: tuple[int, int]
) -> None:
    gate = tmp_path / "gate"

    def serving(port: int) -> Any:
        return running_http(tools, "--http", http=HTTP, port=port, **shared)

    async with AsyncExitStack() as opened:
        servers = [await opened.enter_async_context(serving(port)) for port in ports]
        address = await opened.enter_async_context(balancer([each.base for each in servers], tmp_path, sticky=False))

        async def ada(what: str, tool: str, arguments: Any) -> Any:
            return await run(f"{address}/mcp", what, tool, arguments, ADA)

        begun = await ada("start", "waits_again", {"gate": str(gate)})
        other = await ada("start", "waits", {"gate": str(tmp_path / "never")})
        await until(gate.with_name("gate.begun").exists)
        # In turn, and so on both; each client makes several requests.
        for what in ("status", "update", "status", "update"):
            assert await ada(what, "waits_again", begun) == {"status": "working"}
        await bob_sees_nothing(address, begun["taskId"])
        assert await ada("cancel", "waits", other) == {"status": "cancelled"}
        (index,) = [index for index in (0, 1) if await runs_a_call(servers[index], ADA)]
        servers[index].signal(signal.SIGKILL)
        await servers[index].exit_code()
        await until(lambda: gate.with_name("gate.begun").read_text() == "xx")
        await opened.enter_async_context(serving(ports[index]))
        await until(partial(both_answer, address))
        assert await ada("status", "waits_again", begun) == {"status": "working"}
        gate.touch()
        for _ in range(2):
            assert (await ada("result", "waits_again", begun))["texts"] == ["through\n"]
        await bob_sees_nothing(address, begun["taskId"])


async def bob_sees_nothing(address: str, task_id: str) -> None:
    """Whichever server he reaches, and whatever he asks."""
    async with client_of(address, BOB) as client:
        for _ in range(2):
            for method, more in (("get", {}), ("cancel", {}), ("update", {"inputResponses": {}})):
                with pytest.raises(MCPError, match="no such task of yours"):
                    await request(client, f"tasks/{method}", taskId=task_id, **more)


async def both_answer(address: str) -> bool:
    """Whether nginx has found that a server which was gone is back."""
    async with http_client() as client:
        seen = [(await client.get(f"{address}/health")).status_code for _ in range(4)]
    return seen == [200] * 4


@pytest.mark.mcp1
async def test_an_older_client_whose_server_is_about_to_end_learns_it_and_begins_again_on_the_other(
    tools: Path, tmp_path: Path
) -> None:
    try:
        program = await anyio.to_thread.run_sync(mcp1.python)
    except PackageUnavailable as exc:
        requirements.give_up("mcp1", str(exc))
        raise
    async with (
        running_http(tools, "--http", http=HTTP, WHICH="one") as one,
        running_http(tools, "--http", http=HTTP, WHICH="two") as two,
        balancer((one.base, two.base), tmp_path) as address,
        http_client(BOB) as raw,
    ):
        words = [str(program), str(mcp1.SCRIPTS / "mcp1_session.py"), f"{address}/mcp", ADA, "who"]
        async with await anyio.open_process(words, stderr=subprocess.DEVNULL) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            lines = lines_of(client)
            with anyio.fail_after(3 * LIMIT):
                first = await anext(lines)
                left, stays = (one, "two\n") if first == "one\n" else (two, "one\n")
                # Something runs there, so that it stays for a while and answers 503, as a server does that is about to
                # end.
                async with held_call(raw, left, tmp_path / "gate"):
                    left.signal(signal.SIGTERM)
                    await until(lambda: any("shutting down" in line for line in left.log))
                    await client.stdin.send(b"\n")
                    assert (await anext(lines))[1] == "Session terminated"
                    assert await anext(lines) == stays
            assert await client.wait() == 0


async def lines_of(process: Any) -> AsyncIterator[Any]:
    """What it prints, a line of JSON each."""
    rest = b""
    async for chunk in process.stdout:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield json.loads(line)
