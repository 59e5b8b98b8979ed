"""A server that is told to end says so first, then takes nothing new, and lets what runs end: as balancers and
Kubernetes expect it."""

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
from mcp.shared.exceptions import MCPError

from tests.kit.records import records_place, variables_of
from tests.kit.tasks import TasksExtension, begin, ended, get
from tests.kit.until import until
from tests.serving.clients import LIMIT
from tests.serving.http_server import ACCEPT, HttpServer, client_of, http_client, initialize_body, running_http
from tests.serving.sample_tools import python, write_tool
from tests.serving.tasks.tools import GATE, WAITS, write_task_tools

pytestmark = pytest.mark.anyio

LONG = "600"
"""Seconds that no test waits for."""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    directory.mkdir()
    write_task_tools(directory)
    write_tool(directory, "holds", python(WAITS), parameters=GATE)
    return directory


def call_body(tool: str, arguments: dict[str, Any] | None = None, number: int = 7) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments or {}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


async def session_of(client: httpx2.AsyncClient, server: HttpServer) -> dict[str, str]:
    """The headers of a session of the older era."""
    opened = await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)
    headers = {**ACCEPT, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
    await client.post(server.mcp, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
    return headers


@asynccontextmanager
async def held_call(client: httpx2.AsyncClient, server: HttpServer, gate: Path) -> AsyncIterator[dict[str, str]]:
    """Meanwhile a call runs that ends with the file `gate`; the headers of its session. Afterwards the file is there,
    and the answer has come."""
    headers = await session_of(client, server)
    answers: list[str] = []

    async def call() -> None:
        answers.append(
            (await client.post(server.mcp, json=call_body("holds", {"gate": str(gate)}), headers=headers)).text
        )

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await until(gate.with_name(f"{gate.name}.begun").exists)
        yield headers
        gate.touch()
    assert "through" in answers[0]


async def says_no(client: httpx2.AsyncClient, server: HttpServer) -> bool:
    answer = await client.get(f"{server.base}/ready")
    return answer.status_code == 503 and answer.json() == {"status": "shutting down"}


async def test_calls_are_taken_until_balancers_have_had_the_time_to_notice(tools: Path, tmp_path: Path) -> None:
    async with running_http(tools, http={"drain_delay": LONG}) as server, http_client() as client:
        headers = await session_of(client, server)
        server.signal(signal.SIGTERM)
        await until(lambda: says_no(client, server))
        assert (await client.get(f"{server.base}/health")).status_code == 200
        answer = await client.post(server.mcp, json=call_body("plain"), headers=headers)
        assert "plain" in answer.text
        assert answer.headers["connection"] == "close"  # so that its client turns elsewhere
        assert (await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)).status_code == 200
        server.signal(signal.SIGTERM)  # the second one waits for nothing
        assert await server.exit_code() == 0


async def test_the_delay_ends_by_itself(tools: Path) -> None:
    async with running_http(tools, http={"drain_delay": "0.2", "drain": LONG}) as server:
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0


async def test_new_calls_are_refused_with_the_time_to_try_again_while_others_end(tools: Path, tmp_path: Path) -> None:
    async with running_http(tools, http={"drain": LONG}) as server, http_client() as client:
        async with held_call(client, server, tmp_path / "gate") as headers:
            server.signal(signal.SIGTERM)
            await until(lambda: says_no(client, server))

            async def refused() -> httpx2.Response | None:
                answer = await client.post(server.mcp, json=call_body("plain"), headers=headers)
                return answer if answer.status_code == 503 else None

            answer = await until(refused)
            assert answer is not None
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["connection"] == "close"
            error = answer.json()
            assert error["id"] == 7
            assert "nothing has begun" in error["error"]["message"]
            for new in (initialize_body(), [call_body("plain")]):
                assert (await client.post(server.mcp, json=new, headers=headers)).status_code == 503
            assert (await client.get(server.mcp, headers=headers)).status_code == 503
            assert (await client.get(f"{server.base}/metrics")).status_code == 200
            # What belongs to calls that run reaches them, and clients check the answers of those that have ended.
            listed = await client.post(
                server.mcp, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=headers
            )
            assert '"holds"' in listed.text
            said = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}}
            assert (await client.post(server.mcp, json=said, headers=headers)).status_code == 202
        assert await server.exit_code() == 0


async def test_clients_that_go_on_asking_do_not_keep_it_from_ending(tools: Path, tmp_path: Path) -> None:
    async with running_http(tools, http={"drain": LONG}) as server, http_client() as client:
        async with held_call(client, server, tmp_path / "gate") as headers:
            server.signal(signal.SIGTERM)
            await until(lambda: says_no(client, server))

        async def ask() -> None:
            async with http_client() as own:
                try:
                    while True:
                        await own.post(server.mcp, json=call_body("plain"), headers=headers)
                except httpx2.TransportError:
                    return

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(ask)
            assert await server.exit_code() == 0


async def test_a_real_client_reads_why_its_call_was_refused_and_the_next_server_takes_it(
    tools: Path, tmp_path: Path
) -> None:
    async with (
        running_http(tools, http={"drain": LONG}) as server,
        running_http(tools) as other,
        http_client() as raw,
        Client(streamable_http_client(server.mcp), read_timeout_seconds=LIMIT) as client,
        Client(streamable_http_client(other.mcp), read_timeout_seconds=LIMIT) as elsewhere,
    ):
        await client.list_tools()
        async with held_call(raw, server, tmp_path / "gate"):
            server.signal(signal.SIGTERM)
            await until(lambda: says_no(raw, server))

            async def refused() -> str | None:
                try:
                    await client.call_tool("plain", {})
                except MCPError as exc:
                    return str(exc)
                return None  # the second half of the shutdown has yet to begin

            assert "This server is shutting down, and nothing has begun here" in str(await until(refused))
            assert not (await elsewhere.call_tool("plain", {})).is_error
        assert await server.exit_code() == 0


async def test_tasks_are_answered_for_while_their_server_drains_and_handed_over_where_it_ends(
    tools: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with records_place(tmp_path, "sqlite") as records:
        variables: dict[str, Any] = variables_of(records)
        async with running_http(tools, http={"drain": LONG}, **variables) as server, http_client() as raw:
            async with client_of(server, extensions=[TasksExtension()]) as client:
                task_id = await begin(client, "waits_again", gate)
                server.signal(signal.SIGTERM)
                await until(lambda: says_no(raw, server))
                assert (await get(client, task_id))["status"] == "working"
            server.signal(signal.SIGTERM)
            assert await server.exit_code() == 0
        async with (
            running_http(tools, **variables) as server,
            client_of(server, extensions=[TasksExtension()]) as client,
        ):
            await until(lambda: (tmp_path / "gate.begun").read_text() == "xx")
            gate.touch()
            assert (await ended(client, task_id))["status"] == "completed"
