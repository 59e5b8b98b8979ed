"""Whose a task is, and which requests are led astray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import HEADER_MISMATCH, INVALID_PARAMS

from praxis_mcp.serving.access import hash_token
from tests.kit.tasks import TASKS, TasksExtension, ended, get, request, start
from tests.serving.http_server import HttpServer, client_of, http_client, modern_request, running_http
from tests.serving.tasks.tools import write_task_tools

pytestmark = pytest.mark.anyio
TOKENS = {"anna": ["tools:*"], "bob": ["tools:*"], "carl": ["tools:plain"]}


@pytest.fixture(scope="module")
async def server(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpServer]:
    directory = tmp_path_factory.mktemp("task-tools")
    write_task_tools(directory)
    tokens = {name: {"sha256": hash_token(f"praxis_{name}"), "scopes": scopes} for name, scopes in TOKENS.items()}
    place = str(tmp_path_factory.mktemp("records"))
    http = {"auth": {"tokens": tokens}}
    async with running_http(
        directory, "--http", http=http, PRAXIS_RECORDS__DIRECTORY=place, PRAXIS_TASKS__MAX_PER_CALLER="3"
    ) as running:
        yield running


def client_named(server: HttpServer, name: str) -> AbstractAsyncContextManager[Client]:
    return client_of(server, f"praxis_{name}", extensions=[TasksExtension()])


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
async def test_a_task_of_another_caller_is_not_there(server: HttpServer, tmp_path: Path, method: str) -> None:
    more: dict[str, Any] = {"inputResponses": {}} if method == "tasks/update" else {}
    async with client_named(server, "anna") as anna, client_named(server, "bob") as bob:
        created = await start(anna, "waits", {"gate": str(tmp_path / "gate")})
        with pytest.raises(MCPError) as theirs:
            await request(bob, method, taskId=created.task_id, **more)
        with pytest.raises(MCPError) as nobodys:
            await request(bob, method, taskId="f" * 32, **more)
        assert theirs.value.error == nobodys.value.error
        assert theirs.value.error.code == INVALID_PARAMS
        assert (await get(anna, created.task_id))["status"] == "working"
        (tmp_path / "gate").touch()
        assert (await ended(anna, created.task_id))["status"] == "completed"


async def test_a_caller_has_so_many_tasks_and_the_oldest_that_ended_give_way(
    server: HttpServer, tmp_path: Path
) -> None:
    async with client_named(server, "bob") as bob:
        (tmp_path / "open").touch()
        first = await start(bob, "waits", {"gate": str(tmp_path / "open")})
        await ended(bob, first.task_id)
        running = [await start(bob, "waits", {"gate": str(tmp_path / "gate")}) for _ in range(3)]
        with pytest.raises(MCPError):
            await get(bob, first.task_id)
        refused: Any = await bob.session.call_tool("waits", {"gate": str(tmp_path / "gate")}, allow_claimed=True)
        assert refused.is_error
        assert "3 tasks of yours have not ended yet" in refused.content[0].text
        for each in running:
            await request(bob, "tasks/cancel", taskId=each.task_id)
            await ended(bob, each.task_id)


async def test_a_header_that_names_another_task_is_refused(server: HttpServer) -> None:
    body, headers = modern_request("tasks/get", {"taskId": "a" * 32}, {"extensions": {TASKS: {}}})
    async with http_client("praxis_anna") as http:
        for name, code in (("b" * 32, HEADER_MISMATCH), ("a" * 32, INVALID_PARAMS), (None, INVALID_PARAMS)):
            named = {"Mcp-Name": name} if name else {}
            answer = await http.post(server.mcp, json=body, headers={**headers, **named})
            assert f'"code":{code}' in answer.text.replace(" ", ""), answer.text
