"""Tasks whose server is killed, restarted, or not the one that is asked: all on one store."""

from __future__ import annotations

import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from tests.kit.records import variables_of
from tests.kit.tasks import TasksExtension, begin, ended, get, request, start
from tests.kit.until import until
from tests.serving.http_server import HttpServer, client_of, running_http

pytestmark = pytest.mark.anyio


def serving(tools: Path, records: Path, **environment: Any) -> Any:
    return running_http(tools, "--http", **variables_of(records), **environment)


def tasks_client(server: HttpServer) -> AbstractAsyncContextManager[Client]:
    return client_of(server, extensions=[TasksExtension()])


async def test_finished_work_outlives_its_server_with_all_that_it_left(tools: Path, records: Path) -> None:
    async with serving(tools, records) as server:
        async with tasks_client(server) as client:
            task = await ended(client, (await start(client, "leaves")).task_id)
        server.signal(signal.SIGKILL)
        await server.exit_code()
    async with serving(tools, records) as server, tasks_client(server) as client:
        assert await get(client, task["taskId"]) == task
        uris = [block["uri"] for block in task["result"]["content"] if block["type"] == "resource_link"]
        texts: list[Any] = [(await client.read_resource(uri)).contents[0] for uri in uris]
        assert len(texts[0].text) > 100_000
        assert texts[1].text == "the whole report"
        run: Any = (await client.read_resource(uris[0].rpartition("/")[0])).contents[0]
        assert '"exit_code": 0' in run.text


async def test_a_task_of_a_server_that_was_killed_is_reported_as_lost(
    tools: Path, records: Path, tmp_path: Path
) -> None:
    async with serving(tools, records) as server:
        async with tasks_client(server) as client:
            task_id = await begin(client, "waits", tmp_path / "gate")
        server.signal(signal.SIGKILL)
        await server.exit_code()
    async with serving(tools, records) as server, tasks_client(server) as client:
        task = await ended(client, task_id)
        assert task["status"] == "failed"
        assert task["error"]["code"] == -32603
        assert "has ended before it had" in task["error"]["message"]
        assert task["statusMessage"] == task["error"]["message"]


async def test_a_task_that_may_be_run_again_is_where_its_server_was_killed(
    tools: Path, records: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with serving(tools, records) as server:
        async with tasks_client(server) as client:
            task_id = await begin(client, "waits_again", gate)
        server.signal(signal.SIGKILL)
        await server.exit_code()
    gate.touch()
    async with serving(tools, records) as server, tasks_client(server) as client:
        task = await ended(client, task_id)
        assert task["status"] == "completed"
        assert task["result"]["content"][0]["text"] == "through\n"
        assert (tmp_path / "gate.begun").read_text() == "xx"


async def test_a_task_that_may_be_run_again_is_begun_again_though_nobody_asks(
    tools: Path, records: Path, tmp_path: Path
) -> None:
    async with serving(tools, records) as server:
        async with tasks_client(server) as client:
            await begin(client, "waits_again", tmp_path / "gate")
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
    async with serving(tools, records):
        await until(lambda: (tmp_path / "gate.begun").read_text() == "xx")
        (tmp_path / "gate").touch()


async def test_a_task_of_a_server_that_is_shut_down_is_reported_so(tools: Path, records: Path, tmp_path: Path) -> None:
    async with serving(tools, records, PRAXIS_HTTP__DRAIN="0.1") as server:
        async with tasks_client(server) as client:
            task_id = await begin(client, "waits", tmp_path / "gate")
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
    async with serving(tools, records) as server, tasks_client(server) as client:
        task = await ended(client, task_id)
        assert (task["status"], task["error"]["message"][:23]) == ("failed", "The server was shut dow")


async def test_a_task_that_ends_while_its_server_drains_is_completed(
    tools: Path, records: Path, tmp_path: Path
) -> None:
    async with serving(tools, records, PRAXIS_HTTP__DRAIN="60") as server:
        async with tasks_client(server) as client:
            task_id = await begin(client, "waits", tmp_path / "gate")
        server.signal(signal.SIGTERM)
        await until(lambda: any("shutting down" in line for line in server.log))
        (tmp_path / "gate").touch()
        assert await server.exit_code() == 0
    async with serving(tools, records) as server, tasks_client(server) as client:
        assert (await get(client, task_id))["status"] == "completed"


async def test_any_server_on_the_store_answers_for_a_task_and_cancels_it(
    tools: Path, records: Path, tmp_path: Path
) -> None:
    async with serving(tools, records) as one, serving(tools, records) as other:
        async with tasks_client(one) as client:
            first = await start(client, "waits", {"gate": str(tmp_path / "first")})
            second = await start(client, "waits", {"gate": str(tmp_path / "second")})
        # Its client has left by now, which ends no task.
        async with tasks_client(other) as client:
            assert (await get(client, first.task_id))["status"] == "working"
            (tmp_path / "first").touch()
            task = await ended(client, first.task_id)
            assert task["result"]["content"][0]["text"] == "through\n"
            await until((tmp_path / "second.begun").exists)
            await request(client, "tasks/cancel", taskId=second.task_id)
            assert (await ended(client, second.task_id))["status"] == "cancelled"
