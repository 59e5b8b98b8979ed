"""Tasks on several servers of one store, attacked: ends that are asked for everywhere at once, servers that are killed
while they run one or are about to end, guessed ids, and tokens that were changed."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from praxis_mcp.serving.access import hash_token
from tests.kit.records import variables_of
from tests.kit.tasks import TasksExtension, begin, ended, get, listen, request, start
from tests.kit.until import until
from tests.serving.http_server import HttpServer, client_of, http_client, running_http

pytestmark = pytest.mark.anyio

ADA, BOB = "praxis_ada", "praxis_bob"


def serving(tools: Path, records: Path, ada: str = ADA, **environment: str) -> Any:
    tokens = {"ada": {"sha256": hash_token(ada)}, "bob": {"sha256": hash_token(BOB)}}
    more: dict[str, Any] = {**variables_of(records), **environment}
    return running_http(tools, "--http", http={"auth": {"tokens": tokens}}, **more)


def tasks_client(server: HttpServer, token: str = ADA, extension: Any = None) -> AbstractAsyncContextManager[Client]:
    return client_of(server, token, extensions=[extension or TasksExtension()])


@asynccontextmanager
async def clients_of_two(tools: Path, records: Path, second: str = ADA) -> AsyncIterator[tuple[Client, Client]]:
    """A client of each of two servers; the second one has that token."""
    async with (
        serving(tools, records) as one,
        serving(tools, records) as two,
        tasks_client(one) as first,
        tasks_client(two, second) as other,
    ):
        yield first, other


async def test_an_end_that_is_asked_for_everywhere_at_once_comes_once_and_one_that_has_come_stays(
    tools: Path, records: Path, tmp_path: Path
) -> None:
    async with clients_of_two(tools, records) as (here, there):
        for number in range(4):
            gate = tmp_path / f"gate{number}"
            task_id = (await start(here, "waits", {"gate": str(gate)})).task_id
            if number % 2:
                await until(gate.with_name(f"{gate.name}.begun").exists)
            async with anyio.create_task_group() as tasks:
                for client in (there, here, there, here):
                    tasks.start_soon(partial(request, client, "tasks/cancel", taskId=task_id))
                if number > 1:  # it comes to its own end in the same moment
                    gate.touch()
            first, second = await ended(there, task_id), await ended(here, task_id)
            assert first == second
            assert first["status"] == "cancelled" if number < 2 else first["status"] in ("cancelled", "completed")
            await request(there, "tasks/cancel", taskId=task_id)
            assert await ended(here, task_id) == first


async def test_guessed_ids_and_ids_of_others_are_nothing_on_any_server(
    tools: Path, records: Path, tmp_path: Path
) -> None:
    async with clients_of_two(tools, records, BOB) as (ada, bob):
        task_id = (await start(ada, "waits", {"gate": str(tmp_path / "gate")})).task_id
        guessed = f"{int(task_id, 16) ^ 1:032x}"
        for name in (task_id, guessed, task_id.upper(), f" {task_id}", f"{task_id}%", "' OR 1=1 --", "", "\0", "../x"):
            for method, more in (("get", {}), ("cancel", {}), ("update", {"inputResponses": {}})):
                with pytest.raises(MCPError) as refused:
                    await request(bob, f"tasks/{method}", taskId=name, **more)
                assert re.fullmatch(
                    r"There is no such task of yours \(any more\)\.|.*Mcp-Name.*", refused.value.error.message
                )
        assert (await get(ada, task_id))["status"] == "working"


@pytest.mark.parametrize("tool", ["waits", "waits_again"])
async def test_a_listener_on_one_server_receives_the_end_of_a_task_whose_server_was_killed_while_about_to_end(
    tools: Path, records: Path, tmp_path: Path, tool: str
) -> None:
    gate, extension = tmp_path / "gate", TasksExtension()
    async with (
        serving(tools, records, PRAXIS_HTTP__DRAIN="600") as one,
        serving(tools, records) as two,
        tasks_client(two, extension=extension) as there,
    ):
        async with tasks_client(one) as here:
            task_id = await begin(here, tool, gate)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, there, task_id)
            await until(lambda: "working" in [told["status"] for told in extension.told])
            one.signal(signal.SIGTERM)
            await until(lambda: any("shutting down" in line for line in one.log))
            assert (await get(there, task_id))["status"] == "working", "it may end yet"
            one.signal(signal.SIGKILL)
            if tool == "waits_again":
                await until(lambda: gate.with_name("gate.begun").read_text() == "xx")
                gate.touch()
            await until(lambda: extension.told[-1]["status"] != "working")
            tasks.cancel_scope.cancel()
        last = extension.told[-1]
        if tool == "waits_again":
            assert last["result"]["content"][0]["text"] == "through\n"
        else:
            assert "The server that ran it has ended" in last["error"]["message"]


async def test_a_task_that_is_run_again_is_not_refused_for_what_its_killed_server_had_of_its_caller(
    tools: Path, records: Path, tmp_path: Path
) -> None:
    limits = {"PRAXIS_CALLS__MAX_PER_CALLER": "2"}
    gates = [tmp_path / "a", tmp_path / "b"]
    async with serving(tools, records, **limits) as one, serving(tools, records, **limits) as two:
        async with tasks_client(one) as here:
            ids = [await begin(here, "waits_again", gate) for gate in gates]
        one.signal(signal.SIGKILL)
        async with tasks_client(two) as there:
            for gate in gates:
                began = gate.with_name(f"{gate.name}.begun")
                await until(lambda began=began: began.read_text() == "xx")
                gate.touch()
            for task_id in ids:
                assert (await ended(there, task_id))["result"]["content"][0]["text"] == "through\n"


async def test_who_has_a_changed_token_has_the_tasks_and_runs_of_before_and_the_former_token_has_nothing(
    tools: Path, records: Path, tmp_path: Path
) -> None:
    (tmp_path / "gate").touch()
    async with serving(tools, records) as server, tasks_client(server) as client:
        task_id = (await start(client, "leaves")).task_id
        content = (await ended(client, task_id))["result"]["content"]
        uri = next(block["uri"] for block in content if block["type"] == "resource_link")
    async with serving(tools, records, "praxis_changed") as server:
        async with tasks_client(server, "praxis_changed") as client:
            assert (await get(client, task_id))["status"] == "completed"
            assert (await client.read_resource(uri)).contents
        async with http_client(ADA) as http:
            assert (await http.post(server.mcp, json={})).status_code == httpx2.codes.UNAUTHORIZED
        async with tasks_client(server, BOB) as client:
            with pytest.raises(MCPError, match="no such task of yours"):
                await get(client, task_id)
            with pytest.raises(MCPError, match="of yours is kept"):
                await client.read_resource(uri)
