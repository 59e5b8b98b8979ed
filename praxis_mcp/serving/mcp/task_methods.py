"""The MCP tasks extension, ``io.modelcontextprotocol/tasks`` (SEP-2663): who speaks it, and its methods.

What runs tasks (`praxis_mcp.execution.tasks`) is imported when there is something for it to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    RequestParams,
)
from pydantic import Field

from praxis_mcp.errors import RecordsUnavailable, RunNotFoundError
from praxis_mcp.execution.records.row import iso_time
from praxis_mcp.serving.access import Caller
from praxis_mcp.serving.greeting import TASKS
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.task_calls import TaskCalls
from praxis_mcp.settings.sections import TaskSettings
from praxis_mcp.support.logs import logger

if TYPE_CHECKING:
    from praxis_mcp.execution.tasks.task import StoredTask

Context = ServerRequestContext[Any, Any]
MOST_LISTENED = 100
"""Tasks that one stream reports."""
_LONGEST_ID = 128


class TaskParams(RequestParams):
    """Parameters of ``tasks/get`` and ``tasks/cancel``."""

    task_id: str = Field(max_length=_LONGEST_ID)


class UpdateParams(TaskParams):
    """Parameters of ``tasks/update``."""

    input_responses: dict[str, Any]


def speaks_tasks(ctx: Context) -> bool:
    """Whether the client of a request has declared the extension with it. Older revisions do not have it, whatever
    their clients declare (SEP-2663, "Backward Compatibility")."""
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities is not None else None
    return Dialect(ctx.protocol_version).modern and declared is not None and TASKS in declared


def require_tasks(ctx: Context) -> None:
    """Refuse a request whose client has not declared the extension.

    Raises:
        MCPError: says so, as the specification has it.
    """
    if not Dialect(ctx.protocol_version).modern:
        raise MCPError(METHOD_NOT_FOUND, "Method not found", ctx.method)
    if not speaks_tasks(ctx):
        required = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, f"The client did not declare {TASKS}.", required)


def task_facts(task: StoredTask, settings: TaskSettings) -> dict[str, Any]:
    """What a client learns of a task: SEP-2663's `Task`, or `DetailedTask` where it has ended."""
    facts: dict[str, Any] = {
        "taskId": task.id,
        "status": task.status,
        "createdAt": iso_time(task.created),
        "lastUpdatedAt": iso_time(max(task.created, task.updated)),
        "ttlMs": round((task.expires - task.created) * 1000),
        "pollIntervalMs": round(settings.poll_interval * 1000),
    }
    if task.message is not None:
        facts["statusMessage"] = task.message
    if task.result is not None:
        facts["result"] = json.loads(task.result)
    if task.error is not None:
        facts["error"] = json.loads(task.error)
    return facts


class TaskMethods:
    """``tasks/get``, ``tasks/update`` and ``tasks/cancel``, of a caller's own tasks."""

    def __init__(self, calls: TaskCalls, settings: TaskSettings) -> None:
        self._calls = calls
        self._settings = settings

    async def get(self, ctx: Context, params: TaskParams, caller: Caller) -> dict[str, Any]:
        """A task as it is now, with its result or error where it has ended."""
        _check(ctx, params.task_id)
        return task_facts(await self.find(params.task_id, caller), self._settings)

    async def update(self, ctx: Context, params: UpdateParams, caller: Caller) -> dict[str, Any]:
        """Nothing here ever asks for input, so every answer is one to a question that was not put: ignored, as the
        specification has it."""
        _check(ctx, params.task_id)
        await self.find(params.task_id, caller)
        return {}

    async def cancel(self, ctx: Context, params: TaskParams, caller: Caller) -> dict[str, Any]:
        """Ask for the end of a task, wherever it runs."""
        _check(ctx, params.task_id)
        try:
            await self._calls.cancel(params.task_id, caller)
        except (RunNotFoundError, RecordsUnavailable) as exc:
            raise _translated(exc) from exc
        return {}

    async def find(self, task_id: str, caller: Caller) -> StoredTask:
        """A task of that caller.

        Raises:
            MCPError: there is none, or it cannot be read.
        """
        try:
            return await self._calls.find(task_id, caller)
        except (RunNotFoundError, RecordsUnavailable) as exc:
            raise _translated(exc) from exc


def listened(wanted: Mapping[str, Any]) -> Sequence[str] | None:
    """The tasks that a client wants reports of, by what it sent with ``subscriptions/listen``; None where it did not
    mention any.

    Raises:
        MCPError: that is not a list of ids, or too long.
    """
    ids = wanted.get("taskIds")
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(isinstance(item, str) and len(item) <= _LONGEST_ID for item in ids):
        raise MCPError(INVALID_PARAMS, "taskIds is a list of ids.")
    if len(ids) > MOST_LISTENED:
        raise MCPError(INVALID_PARAMS, f"taskIds has {len(ids)} ids; one stream reports {MOST_LISTENED} at most.")
    return list(dict.fromkeys(ids))


def _check(ctx: Context, task_id: str) -> None:
    require_tasks(ctx)
    named = ctx.request.headers.get(MCP_NAME_HEADER) if ctx.request is not None else None
    # What routes requests by their headers must not be led elsewhere than the body does (SEP-2243). That it is missing,
    # as some clients have it, leads nowhere.
    if named is not None and decode_header_value(named) != task_id:
        raise MCPError(HEADER_MISMATCH, "The header Mcp-Name is not the task of the request's body.")


def _translated(exc: RunNotFoundError | RecordsUnavailable) -> MCPError:
    if isinstance(exc, RunNotFoundError):
        return MCPError(INVALID_PARAMS, exc.message)
    logger.warning("a task could not be looked up: {}", exc)
    return MCPError(INTERNAL_ERROR, "The store of tasks cannot be used now. Try again later.")
