"""The tools ``runs_status``, ``runs_result`` and ``runs_cancel``: tasks for the models of clients that do not speak the
tasks extension. They are served where ``tasks.tools`` says so, unless there is another tool of the same name."""

from __future__ import annotations

import json
import time
from bisect import insort
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations

from praxis_mcp.errors import ArgumentError
from praxis_mcp.execution.records.row import iso_time
from praxis_mcp.federation.upstreams import Entry
from praxis_mcp.serving.access import Caller
from praxis_mcp.serving.mcp.blocks import content_block, text_block
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.task_calls import TaskCalls

if TYPE_CHECKING:
    from praxis_mcp.execution.tasks.task import StoredTask

STATUS, RESULT, CANCEL = "runs_status", "runs_result", "runs_cancel"
MAX_WAIT = 50
"""Seconds for which ``runs_result`` waits at most: less than any client does."""
_TASK = {"type": "string", "description": "The task's id, as the tool that started it gave it.", "maxLength": 128}
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_STATUS_SCHEMA = {
    "type": "object",
    "properties": {
        "task": {"type": "string"},
        "tool": {"type": "string"},
        "status": {"enum": ["working", "completed", "failed", "cancelled"]},
        "message": {"type": "string"},
        "started": {"type": "string"},
        "seconds": {"type": "number"},
    },
    "required": ["task", "tool", "status", "started", "seconds"],
}


def _tool(name: str, title: str, description: str, more: Mapping[str, Any], hints: ToolAnnotations) -> Tool:
    schema = {
        "type": "object",
        "properties": {"task": _TASK, **more},
        "required": ["task"],
        "additionalProperties": False,
    }
    return Tool(
        name=name,
        title=title,
        description=description,
        input_schema=schema,
        output_schema=_STATUS_SCHEMA if name == STATUS else None,
        annotations=hints,
    )


TOOLS: Mapping[str, Tool] = {
    STATUS: _tool(
        STATUS,
        "Status of a task",
        "Says how a task stands that another tool started: working, completed, failed or cancelled.",
        {},
        _READS,
    ),
    RESULT: _tool(
        RESULT,
        "Result of a task",
        f"Returns the result of a task that another tool started. Waits for it, {MAX_WAIT} seconds at most.",
        {
            "wait": {
                "type": "number",
                "description": "Seconds to wait for its end.",
                "minimum": 0,
                "maximum": MAX_WAIT,
                "default": 20,
            }
        },
        _READS,
    ),
    CANCEL: _tool(
        CANCEL,
        "Cancel a task",
        "Ends a task that another tool started; what it has done by then stays.",
        {},
        ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False),
    ),
}


def started(task: StoredTask) -> CallToolResult:
    """What a model gets whose call has become a task."""
    text = (
        f"{task.tool} has begun as task {task.id}, and goes on by itself. Call {RESULT} with that id for its result, "
        f"{STATUS} to see how it stands, {CANCEL} to end it."
    )
    return CallToolResult(content=[text_block(text)])


class TaskTools:
    """Lists and calls them."""

    def __init__(self, calls: TaskCalls) -> None:
        self._calls = calls
        self._merged: tuple[Sequence[Entry], Sequence[Entry | Tool]] | None = None

    def merged_with(self, entries: Sequence[Entry]) -> Sequence[Entry | Tool]:
        """These tools among others, sorted by name; the same object for the same entries."""
        if self._merged is None or self._merged[0] is not entries:
            merged: list[Entry | Tool] = list(entries)
            known = {entry.name for entry in entries}
            for tool in TOOLS.values():
                if tool.name not in known:
                    insort(merged, tool, key=lambda entry: entry.name)
            self._merged = (entries, merged)
        return self._merged[1]

    async def call(self, name: str, arguments: Mapping[str, Any], caller: Caller, dialect: Dialect) -> CallToolResult:
        """Call one of them.

        Raises:
            ArgumentError: the arguments do not fit.
            RunNotFoundError: there is no such task of that caller.
            RecordsUnavailable: it cannot be read.
        """
        task_id, wait = _arguments(name, arguments)
        if name == CANCEL:
            task = await self._calls.cancel(task_id, caller)
            text = f"It has ended already: {task.status}." if task.has_ended else "It is being cancelled."
            return CallToolResult(content=[text_block(text)])
        task = await self._calls.find(task_id, caller)
        if name == STATUS:
            facts = _facts(task)
            return CallToolResult(content=[TextContent(text=json.dumps(facts))], structured_content=facts)
        limit = time.monotonic() + wait
        while not task.has_ended and (left := limit - time.monotonic()) > 0:
            await self._calls.wait_for_change(min(1.0, left))
            task = await self._calls.find(task_id, caller)
        return _result(task, dialect)


def _arguments(name: str, arguments: Mapping[str, Any]) -> tuple[str, float]:
    known = TOOLS[name].input_schema["properties"]
    if unknown := sorted(set(arguments) - set(known)):
        raise ArgumentError(f"{name} has no parameter {unknown[0][:64]}; it has {', '.join(known)}.")
    task_id, wait = arguments.get("task"), arguments.get("wait", 20)
    if not isinstance(task_id, str):
        raise ArgumentError("task is missing: the id of a task.")
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= MAX_WAIT:
        raise ArgumentError(f"wait is a number of seconds from 0 to {MAX_WAIT}.")
    return task_id[:128], wait


def _facts(task: StoredTask) -> dict[str, Any]:
    until = task.updated if task.has_ended else time.time()
    facts: dict[str, Any] = {
        "task": task.id,
        "tool": task.tool,
        "status": task.status,
        "started": iso_time(task.created),
        "seconds": round(max(0.0, until - task.created), 1),
    }
    return facts | ({"message": task.message} if task.message is not None else {})


def _result(task: StoredTask, dialect: Dialect) -> CallToolResult:
    if task.result is not None:
        raw = json.loads(task.result)
        structured = raw.get("structuredContent")
        return CallToolResult(
            content=[content_block(block, dialect) for block in raw.get("content", [])],
            structured_content=structured if dialect.modern or isinstance(structured, dict) else None,
            is_error=bool(raw.get("isError")),
            _meta=raw.get("_meta"),  # pyright: ignore[reportCallIssue]
        )
    if not task.has_ended:
        busy_with = f" ({task.message})" if task.message else ""
        return CallToolResult(content=[text_block(f"It has not ended yet{busy_with}. Call {RESULT} again.")])
    why = json.loads(task.error)["message"] if task.error else "It was cancelled."
    return CallToolResult(content=[text_block(f"There is no result: {why}")], is_error=True)
