"""Limits per caller over several real servers on one database: together they let in what one would."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp import Client

from praxis_mcp.serving.access import hash_token
from tests.kit.postgres import PostgresServer, running_server
from tests.kit.until import until
from tests.serving.clients import text_of
from tests.serving.http_server import HttpServer, client_of, http_client, modern_request, running_http
from tests.serving.sample_tools import python, write_tool
from tests.serving.tasks.tools import GATE, WAITS
from tests.serving.test_replicas import ADA, BOB

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

WATCH = "praxis_watch"
LIMITS = {"PRAXIS_CALLS__MAX_PER_CALLER": "3"}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    directory.mkdir()
    write_tool(directory, "holds", python(WAITS), parameters=GATE)
    write_tool(directory, "plain", python("print('plain')"))
    return directory


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    """One that tests may stop."""
    with running_server() as server:
        yield server


@asynccontextmanager
async def serving(tools: Path, tmp_path: Path, name: str, url: str, **environment: str) -> AsyncIterator[HttpServer]:
    tokens: dict[str, Any] = {who: {"sha256": hash_token(token)} for who, token in (("ada", ADA), ("bob", BOB))}
    tokens["watch"] = {"sha256": hash_token(WATCH), "scopes": ["metrics:read"]}
    own = {"PRAXIS_RECORDS__URL": url, "PRAXIS_RECORDS__DIRECTORY": str(tmp_path / name), "PRAXIS_ROOT": str(tools)}
    async with running_http(
        tools, "--http", http={"auth": {"tokens": tokens}}, port=0, **own, **LIMITS, **environment
    ) as server:
        yield server


async def answer(client: Client, tool: str = "plain", **arguments: str) -> str:
    """What a call of a tool says."""
    return text_of(await client.call_tool(tool, arguments))


async def is_refused(client: Client) -> bool:
    return "3 of your calls are running or waiting" in await answer(client)


async def is_let_in(client: Client) -> bool:
    return not await is_refused(client)


async def are_shared(server: HttpServer) -> bool:
    """What `/metrics` says of the limits."""
    async with http_client(WATCH) as http:
        text = (await http.get(f"{server.base}/metrics")).text
    found = re.search(r"^praxis_caller_limits_shared (\d)$", text, re.MULTILINE)
    assert found is not None, text
    return found[1] == "1"


async def test_two_servers_let_in_what_one_would_and_one_that_is_killed_gives_its_places_back(
    tools: Path, tmp_path: Path, database: PostgresServer
) -> None:
    url, gate = database.database(), tmp_path / "gate"
    async with AsyncExitStack() as opened:
        one = await opened.enter_async_context(serving(tools, tmp_path, "one", url))
        two = await opened.enter_async_context(serving(tools, tmp_path, "two", url))
        there, here, other = [
            await opened.enter_async_context(client_of(server, token))
            for server, token in ((one, ADA), (two, ADA), (two, BOB))
        ]
        assert await are_shared(one)
        async with anyio.create_task_group() as tasks:
            for name in "ab":
                tasks.start_soon(hold_until_killed, one, str(gate) + name)
            tasks.start_soon(partial(answer, here, "holds", gate=str(gate)))
            for name in ("a", "b", ""):
                await until((tmp_path / f"gate{name}.begun").exists)
            for client in (here, there):
                await until(partial(is_refused, client))  # where a busy machine kept one from being counted in time
            assert await answer(other) == "plain\n"
            one.signal(signal.SIGKILL)
            await until(partial(is_let_in, here))
            gate.touch()


async def hold_until_killed(server: HttpServer, gate: str) -> None:
    """A call whose server is killed in the middle of it; the SDK's client would fail as a whole."""
    body, headers = modern_request("tools/call", {"name": "holds", "arguments": {"gate": gate}})
    async with http_client(ADA) as http:
        with pytest.raises(httpx2.TransportError):
            await http.post(server.mcp, headers={**headers, "Mcp-Name": "holds"}, json=body)


async def test_a_database_that_is_restarted_in_the_middle_of_calls_costs_none_of_them_and_the_limits_hold_again(
    tools: Path, tmp_path: Path, database: PostgresServer
) -> None:
    url, gate = database.database(), tmp_path / "gate"
    async with (
        serving(tools, tmp_path, "one", url) as one,
        serving(tools, tmp_path, "two", url) as two,
        client_of(one, ADA) as there,
        client_of(two, ADA) as here,
    ):
        answers: list[str] = []

        async def hold(client: Client, number: int) -> None:
            answers.append(await answer(client, "holds", gate=str(gate)))

        async with anyio.create_task_group() as tasks:
            for number, client in enumerate((there, there, here)):
                tasks.start_soon(hold, client, number)
            await until(lambda: (tmp_path / "gate.begun").exists() and len((tmp_path / "gate.begun").read_text()) == 3)
            await until(partial(is_refused, here))
            await anyio.to_thread.run_sync(database.stop)
            try:
                # By its own count each of them, two has one call.
                await until(partial(is_let_in, here))
                assert not await are_shared(two)
            finally:
                await anyio.to_thread.run_sync(database.start)
            await until(partial(is_refused, here))
            assert await are_shared(two)
            gate.touch()
        assert [text.strip() for text in answers] == ["through"] * 3
        await until(partial(is_let_in, here))
        await until(partial(is_let_in, there))
