"""Calls that are answered with a task, over every transport that the extension is spoken over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND

from tests.kit.tasks import TASKS, TasksExtension, begin, ended, get, request, start
from tests.kit.until import until
from tests.serving.clients import Transport
from tests.serving.tasks.tools import connect_keeping

pytestmark = pytest.mark.anyio
MODERN: list[Transport] = ["memory", "stdio", "http"]


@pytest.fixture(scope="module", params=MODERN)
async def client(request: pytest.FixtureRequest, anyio_backend: str, tools: Path) -> AsyncIterator[Client]:
    """One that speaks the extension."""
    async with connect_keeping(request.param, "modern", tools, extensions=[TasksExtension()]) as connected:
        yield connected


async def test_a_call_is_answered_with_a_task_that_is_there_and_later_has_the_result(
    client: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    created = await start(client, "waits", {"gate": str(gate)})
    assert created.status == "working"
    assert len(created.task_id) == 32
    assert created.ttl_ms > 86_400_000
    assert created.poll_interval_ms == 1000
    task = await get(client, created.task_id)
    assert (task["resultType"], task["status"], task["createdAt"]) == ("complete", "working", created.created_at)
    assert "result" not in task
    gate.touch()
    task = await ended(client, created.task_id)
    assert task["status"] == "completed"
    assert task["result"]["content"] == [{"type": "text", "text": "through\n"}]
    assert task["result"]["isError"] is False
    assert task["ttlMs"] >= 86_400_000, "counted from its end"
    assert await get(client, created.task_id) == task, "as often as it is asked for"


async def test_what_a_tool_reports_is_what_its_task_is_busy_with(client: Client, tmp_path: Path) -> None:
    created = await start(client, "waits", {"gate": str(tmp_path / "gate")})

    async def says() -> bool:
        return "1/2 waiting" in (await get(client, created.task_id)).get("statusMessage", "")

    await until(says)
    await request(client, "tasks/cancel", taskId=created.task_id)


async def test_a_task_has_all_that_the_call_would_have_answered(client: Client) -> None:
    task = await ended(client, (await start(client, "leaves")).task_id)
    result = task["result"]
    assert result["structuredContent"]["sum"] == 3
    assert result["resultType"] == "complete"
    uris = [block["uri"] for block in result["content"] if block["type"] == "resource_link"]
    assert [uri.rpartition("/")[2] for uri in uris] == ["stdout", "report.txt"]
    read = await client.read_resource(uris[1])
    assert getattr(read.contents[0], "text", None) == "the whole report"


async def test_a_tool_that_fails_completes_its_task_with_an_error_for_the_model(client: Client) -> None:
    task = await ended(client, (await start(client, "fails")).task_id)
    assert task["status"] == "completed"
    assert task["result"]["isError"] is True
    assert "exit code 3" in task["result"]["content"][0]["text"]


async def test_arguments_that_do_not_fit_are_refused_at_once(client: Client) -> None:
    answer: Any = await client.session.call_tool("waits", {"gate": [1]}, allow_claimed=True)
    assert answer.is_error


async def test_a_task_is_cancelled(client: Client, tmp_path: Path) -> None:
    task_id = await begin(client, "waits", tmp_path / "gate")
    assert (await request(client, "tasks/cancel", taskId=task_id))["resultType"] == "complete"
    task = await ended(client, task_id)
    assert task["status"] == "cancelled"
    assert "result" not in task
    assert (await request(client, "tasks/cancel", taskId=task_id))["resultType"] == "complete", "once more"


async def test_input_that_nobody_asked_for_is_ignored(client: Client, tmp_path: Path) -> None:
    created = await start(client, "waits", {"gate": str(tmp_path / "gate")})
    answer = await request(client, "tasks/update", taskId=created.task_id, inputResponses={"a": {"action": "accept"}})
    assert answer["resultType"] == "complete"
    assert (await get(client, created.task_id))["status"] == "working"
    await request(client, "tasks/cancel", taskId=created.task_id)


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
async def test_a_task_that_is_not_there_is_not_found(client: Client, method: str) -> None:
    more = {"inputResponses": {}} if method == "tasks/update" else {}
    with pytest.raises(MCPError) as caught:
        await request(client, method, taskId="0" * 32, **more)
    assert caught.value.error.code == INVALID_PARAMS


@pytest.mark.parametrize("method", ["tasks/list", "tasks/result"])
async def test_methods_of_the_older_tasks_are_not_there(client: Client, method: str) -> None:
    with pytest.raises(MCPError) as caught:
        await request(client, method, taskId="0" * 32)
    assert caught.value.error.code == METHOD_NOT_FOUND


async def test_an_ordinary_tool_answers_with_its_result(client: Client) -> None:
    answer: Any = await client.session.call_tool("plain", {}, allow_claimed=True)
    assert answer.content[0].text == "plain\n"


async def test_a_contract_that_may_be_a_task_is_one_for_who_speaks_it(client: Client, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    task = await ended(client, (await start(client, "either", {"gate": str(tmp_path / "gate")})).task_id)
    assert task["status"] == "completed"


async def test_a_server_announces_the_extension(client: Client) -> None:
    assert (client.server_capabilities.extensions or {}).get(TASKS) == {}
