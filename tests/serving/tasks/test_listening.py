"""Clients that listen to their tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY

from tests.kit.tasks import TasksExtension, get, listen, start
from tests.kit.until import until
from tests.serving.clients import Transport, memory_client, open_server, settings_for
from tests.serving.tasks.tools import connect_keeping

pytestmark = pytest.mark.anyio
MODERN: list[Transport] = ["memory", "stdio", "http"]


def statuses(extension: TasksExtension) -> list[str]:
    return [each["status"] for each in extension.told]


@pytest.mark.parametrize("transport", MODERN)
async def test_who_listens_to_a_task_gets_its_result(transport: Transport, tools: Path, tmp_path: Path) -> None:
    extension = TasksExtension()
    gate = tmp_path / "gate"
    task: dict[str, Any] = {}
    async with (
        connect_keeping(transport, "modern", tools, extensions=[extension]) as client,
        anyio.create_task_group() as tasks,
    ):
        created = await start(client, "waits", {"gate": str(gate)})
        tasks.start_soon(listen, client, created.task_id, "0" * 32)
        await until(lambda: "working" in statuses(extension))
        gate.touch()
        await until(lambda: "completed" in statuses(extension))
        task = await get(client, created.task_id)
        tasks.cancel_scope.cancel()
    told = extension.told[-1]
    assert told["result"]["content"][0]["text"] == "through\n"
    about = ("resultType", "_meta")
    assert {key: value for key, value in told.items() if key not in about} == {
        key: value for key, value in task.items() if key not in about
    }
    assert "io.modelcontextprotocol/subscriptionId" in told["_meta"]
    assert {each["taskId"] for each in extension.told} == {task["taskId"]}


async def test_who_listens_to_a_task_that_has_ended_learns_that_at_once(tools: Path, tmp_path: Path) -> None:
    extension = TasksExtension()
    (tmp_path / "gate").touch()
    async with (
        connect_keeping("memory", "modern", tools, extensions=[extension]) as client,
        anyio.create_task_group() as tasks,
    ):
        created = await start(client, "waits", {"gate": str(tmp_path / "gate")})

        async def has_ended() -> bool:
            return (await get(client, created.task_id))["status"] == "completed"

        await until(has_ended)
        tasks.start_soon(listen, client, created.task_id)
        await until(lambda: statuses(extension) == ["completed"])
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("ids", [["x" * 200], [str(number) for number in range(101)]], ids=["long", "many"])
async def test_more_than_a_stream_takes_is_refused(tools: Path, ids: list[str]) -> None:
    async with connect_keeping("memory", "modern", tools, extensions=[TasksExtension()]) as client:
        with pytest.raises(MCPError) as caught:
            await listen(client, *ids)
        assert caught.value.error.code == INVALID_PARAMS


async def test_a_client_without_the_extension_cannot_listen_to_tasks(tools: Path) -> None:
    async with connect_keeping("memory", "modern", tools) as client:
        with pytest.raises(MCPError) as caught:
            await listen(client, "0" * 32)
        assert caught.value.error.code == MISSING_REQUIRED_CLIENT_CAPABILITY


async def test_the_streams_of_listeners_end_with_the_server(tools: Path, tmp_path: Path) -> None:
    answer: dict[str, Any] = {}
    extension = TasksExtension()
    settings = settings_for(tools, records={"directory": str(tmp_path)})
    async with (
        open_server(settings) as (_, server),
        memory_client(server, "modern", extensions=[extension]) as client,
        anyio.create_task_group() as tasks,
    ):
        created = await start(client, "waits", {"gate": str(tmp_path / "gate")})

        async def heard() -> None:
            answer.update(await listen(client, created.task_id))

        tasks.start_soon(heard)
        await until(lambda: "working" in statuses(extension))
        server.take_nothing_new()
        await until(lambda: answer)
        tasks.cancel_scope.cancel()
    assert "io.modelcontextprotocol/subscriptionId" in answer["_meta"]
