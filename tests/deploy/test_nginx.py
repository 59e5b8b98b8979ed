"""The configuration of nginx that is shown, in front of real servers."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from praxis_mcp.serving.access import hash_token
from tests.deploy.balancer import balancer, runs_a_call
from tests.kit.until import until
from tests.serving.clients import LIMIT, text_of
from tests.serving.http.test_drain import held_call
from tests.serving.http_server import ACCEPT, HttpServer, http_client, initialize_body, running_http
from tests.serving.sample_tools import python, write_tool
from tests.serving.tasks.tools import GATE, WAITS

pytestmark = [pytest.mark.anyio, pytest.mark.nginx]

TOKENS = [f"praxis_{number}" for number in range(8)]


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    directory.mkdir()
    write_tool(directory, "holds", python(WAITS), parameters=GATE)
    write_tool(directory, "who", ["sh", "-c", "echo $PPID"])
    return directory


@asynccontextmanager
async def balanced(tools: Path, tmp_path: Path) -> AsyncIterator[tuple[str, list[HttpServer]]]:
    """Two servers, and the address of nginx in front of them."""
    tokens = {
        f"c{number}": {"sha256": hash_token(token), "scopes": ["tools:*", "metrics:read"]}
        for number, token in enumerate(TOKENS)
    }
    http: dict[str, Any] = {"auth": {"tokens": tokens}, "drain": "600"}
    async with (
        running_http(tools, "--http", http=http) as one,
        running_http(tools, "--http", http=http) as two,
        balancer((one.base, two.base), tmp_path) as address,
    ):
        yield address, [one, two]


@asynccontextmanager
async def client_of(address: str, token: str, **options: Any) -> AsyncIterator[Client]:
    async with http_client(token) as http:
        line = streamable_http_client(f"{address}/mcp", http_client=http)
        async with Client(line, read_timeout_seconds=LIMIT, **options) as client:
            yield client


async def test_sessions_of_older_clients_keep_to_their_server(tools: Path, tmp_path: Path) -> None:
    reached: set[str] = set()
    async with balanced(tools, tmp_path) as (address, _):
        for token in TOKENS:
            async with client_of(address, token, mode="legacy") as client:
                for _ in range(3):
                    result = await client.call_tool("who", {})
                    assert not result.is_error
                    reached.add(text_of(result).strip())
    assert reached


async def test_calls_go_to_another_server_while_one_is_about_to_end_and_none_is_made_twice(
    tools: Path, tmp_path: Path
) -> None:
    async with balanced(tools, tmp_path) as (address, servers), http_client(TOKENS[0]) as raw:
        async with held_call(raw, servers[0], tmp_path / "gate"):
            servers[0].signal(signal.SIGTERM)
            await until(lambda: _refuses(servers[0], raw))
            for token in TOKENS:  # some of whom would reach the one that ends
                async with client_of(address, token) as client:
                    assert not (await client.call_tool("who", {})).is_error
        assert await servers[0].exit_code() == 0
    assert (tmp_path / "gate.begun").read_text() == "x"


async def test_a_call_whose_server_breaks_down_is_not_made_again(tools: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with balanced(tools, tmp_path) as (address, servers):

        async def call() -> None:
            async with client_of(address, TOKENS[0]) as client:
                with pytest.raises(Exception):  # noqa: B017 - each version of the SDK has its own
                    await client.call_tool("holds", {"gate": str(gate)})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until((tmp_path / "gate.begun").exists)
            for server in servers[:1] if await runs_a_call(servers[0], TOKENS[0]) else servers[1:]:
                server.signal(signal.SIGKILL)
        assert gate.with_name("gate.begun").read_text() == "x"
        gate.touch()


async def _refuses(server: HttpServer, client: httpx2.AsyncClient) -> bool:
    return (await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)).status_code == 503
