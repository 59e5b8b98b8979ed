"""A client of the MCP tasks extension (SEP-2663), made of the SDK's public parts: its messages as they are on the
wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import mcp_types
from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, NotificationBinding, ResultClaim
from pydantic import BaseModel, ConfigDict, Field

from tests.kit.until import until

TASKS = "io.modelcontextprotocol/tasks"


class CreatedTask(mcp_types.Result):
    """SEP-2663's `CreateTaskResult`."""

    result_type: Literal["task"] = Field(alias="resultType")
    task_id: str = Field(alias="taskId")
    status: str
    created_at: str = Field(alias="createdAt")
    last_updated_at: str = Field(alias="lastUpdatedAt")
    ttl_ms: int = Field(alias="ttlMs")
    poll_interval_ms: int = Field(alias="pollIntervalMs")


class Params(BaseModel):
    """Parameters of a notification as they came."""

    model_config = ConfigDict(extra="allow")


class TasksExtension(ClientExtension):
    """Declares the extension, and hands on what a server answers.

    Attributes:
        told: the parameters of each ``notifications/tasks``.
    """

    identifier = TASKS

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def notifications(self) -> list[NotificationBinding[Any]]:
        return [NotificationBinding(method="notifications/tasks", params_type=Params, handler=self._tell)]

    async def _tell(self, params: Params) -> None:
        self.told.append(params.model_dump())

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=CreatedTask, resolve=self._never)]

    async def _never(self, created: CreatedTask, context: ClaimContext) -> mcp_types.CallToolResult:
        raise AssertionError("tests look at what was created")


class Anything(mcp_types.Result):
    """A result as it came."""

    model_config = ConfigDict(extra="allow")


class _Request(mcp_types.Request[dict[str, Any], str]):
    name_param: ClassVar[str | None] = "taskId"


async def request(client: Client, method: str, **params: Any) -> dict[str, Any]:
    """What a server answers to a request of the extension, as it is on the wire."""
    sent = _Request(method=method, params=params)
    answer = await client.session.send_request(sent, Anything)
    return answer.model_dump(by_alias=True, mode="json", exclude_none=True)


async def listen(client: Client, *ids: str) -> dict[str, Any]:
    """Listen to tasks, until the stream ends; what it ends with."""
    sent = mcp_types.Request[dict[str, Any], str](
        method="subscriptions/listen", params={"notifications": {"taskIds": list(ids)}}
    )
    answer = await client.session.send_request(sent, Anything)
    return answer.model_dump(by_alias=True, mode="json", exclude_none=True)


async def start(client: Client, name: str, arguments: dict[str, Any] | None = None) -> CreatedTask:
    """Call a tool that is to answer with a task."""
    created = await client.session.call_tool(name, arguments or {}, allow_claimed=True)
    assert isinstance(created, CreatedTask), created
    return created


async def begin(client: Client, name: str, gate: Path) -> str:
    """Call a tool that goes on until there is a file `gate`; the id of its task, once it runs."""
    created = await start(client, name, {"gate": str(gate)})
    await until(gate.with_name(f"{gate.name}.begun").exists)
    return created.task_id


async def get(client: Client, task_id: str) -> dict[str, Any]:
    """``tasks/get``."""
    return await request(client, "tasks/get", taskId=task_id)


async def ended(client: Client, task_id: str) -> dict[str, Any]:
    """A task, once it has ended."""

    async def look() -> dict[str, Any] | None:
        task = await get(client, task_id)
        return None if task["status"] == "working" else task

    found = await until(look, what="the end of the task", every=0.1)
    assert found is not None
    return found
