"""Calls that are answered with a task: when one is, what it does, and what is kept of its result."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from mcp_types.methods import serialize_server_result
from mcp_types.version import LATEST_MODERN_VERSION

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.schemas.schema import compile_schemas, is_compiled, validate_arguments
from praxis_mcp.errors import ArgumentError, PraxisError, RecordsUnavailable, RunCancelled, RunNotFoundError
from praxis_mcp.execution.runner import START_ALLOWANCE
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.access import Caller
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.progress import ProgressReporter, reporting
from praxis_mcp.serving.mcp.results import META_KEY, error_result, refusal
from praxis_mcp.support.logs import logger, report_defect
from praxis_mcp.support.text import counted
from praxis_mcp.support.workers import compute, size_of_json

if TYPE_CHECKING:
    from praxis_mcp.execution.tasks.service import Say, TaskService, Work
    from praxis_mcp.execution.tasks.task import Outcome, StoredTask


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a contract's tool.

    Attributes:
        contract: what is called.
        arguments: as they were given.
        caller: who calls; empty is anonymous.
        client: name and version of the program that calls, as it gives them.
    """

    contract: ToolContract
    arguments: Mapping[str, Any]
    caller: str
    client: str


Perform = Callable[[ToolCall, Dialect, ProgressReporter | None], Awaitable[CallToolResult]]
"""Makes a call, and writes its result."""


class TaskCalls:
    """Begins tasks and finds them.

    Args:
        toolbox: what is called, and has the store.
        perform: see `Perform`.
    """

    def __init__(self, toolbox: Toolbox, perform: Perform) -> None:
        self._toolbox = toolbox
        self._perform = perform
        self._service: TaskService | None = None
        self._takes_more = True
        self._is_wanted = anyio.Event()
        self._is_there = anyio.Event()

    @property
    def is_possible(self) -> bool:
        """Whether there is a store that tasks can be kept in."""
        return self._toolbox.records.store is not None

    async def run(self, until_listed: Callable[[], Awaitable[None]]) -> None:
        """Run tasks until cancelled, once the first is wanted, or there is a contract that may have left some.

        Args:
            until_listed: returns when the client has its tools, or long enough has passed.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look, until_listed)
            await self._is_wanted.wait()
            tasks.cancel_scope.cancel()
        store = self._toolbox.records.store
        if store is None:
            return
        from praxis_mcp.execution.tasks.service import TaskService

        self._service = TaskService(store, self._toolbox.settings.tasks, self._again)
        self._service.takes_over = self._takes_more
        self._is_there.set()
        await self._service.run()

    async def idle(self) -> None:
        """Wait until no task runs here."""
        if self._service is not None:
            await self._service.idle()

    def take_no_more(self) -> None:
        """Leave tasks of servers that are gone to others from now on: this one is about to end, too."""
        self._takes_more = False
        if self._service is not None:
            self._service.takes_over = False

    async def begin(self, call: ToolCall) -> StoredTask | None:
        """A task that makes the call; None where the arguments do not fit, which can be said at once, and where the
        contract needs no task and none can be kept.

        Raises:
            QueueFull: too many tasks have not ended.
            RecordsUnavailable: it cannot be kept.
        """
        from praxis_mcp.execution.tasks.service import Order

        contract = call.contract
        if not is_compiled(contract):
            await anyio.to_thread.run_sync(compile_schemas, contract)
        try:
            await compute(validate_arguments, contract, call.arguments, size=size_of_json(call.arguments))
        except ArgumentError:
            return None
        service = await self._get()
        # Before a call runs, it may have to wait for a place, as long as the longest call may take.
        timeout = contract.engine_spec.timeout + START_ALLOWANCE + self._toolbox.settings.calls.max_timeout
        order = Order(contract.name, call.caller, timeout, self._request(call) if contract.retry == "safe" else None)
        try:
            return await service.start(order, self._work(call))
        except RecordsUnavailable as exc:
            if contract.execution == "optional":
                logger.warning("{} runs without a task: {}", contract.name, exc)
                return None
            logger.warning("{} was not started: {}", contract.name, exc)
            raise RecordsUnavailable(
                f"{contract.name} was not started, because its task cannot be recorded now.", remedy="Try again later."
            ) from exc

    async def find(self, task_id: str, caller: Caller) -> StoredTask:
        """A task of that caller, as it is now.

        Raises:
            RunNotFoundError: they have none of that id (any more), or may no longer call its tool.
            RecordsUnavailable: it cannot be read.
        """
        from praxis_mcp.execution.tasks.service import no_such_task

        task = await (await self._get()).get(task_id, caller.name)
        if not caller.may_call(task.tool):
            raise no_such_task()
        return task

    async def cancel(self, task_id: str, caller: Caller) -> StoredTask:
        """Ask for the end of a task; the task before that.

        Raises:
            RunNotFoundError, RecordsUnavailable: see `find`.
        """
        task = await self.find(task_id, caller)
        await (await self._get()).cancel(task)
        return task

    async def changes(self, ids: list[str]) -> dict[str, tuple[float, str]]:
        """When tasks were last updated, and their statuses.

        Raises:
            RecordsUnavailable: that cannot be read.
        """
        return await (await self._get()).changes(ids)

    async def wait_for_change(self, seconds: float) -> None:
        """Wait until a task of this server has ended, or so long."""
        await (await self._get()).wait_for_change(seconds)

    async def _look(self, until_listed: Callable[[], Awaitable[None]]) -> None:
        await until_listed()
        await self._toolbox.loaded()
        if any(entry.traits.execution != "call" for entry in self._toolbox.catalog.entries()):
            self._is_wanted.set()

    async def _get(self) -> TaskService:
        if not self.is_possible:
            raise RunNotFoundError("This server keeps no tasks: it has no records (records.enabled).")
        self._is_wanted.set()
        await self._is_there.wait()
        assert self._service is not None
        return self._service

    def _request(self, call: ToolCall) -> str:
        return json.dumps(
            {
                "arguments": call.arguments,
                "client": call.client,
                "contract": self._toolbox.catalog.get(call.contract.name).fingerprint,
                "root": str(self._toolbox.settings.root),
            }
        )

    def _again(self, task: StoredTask) -> Work | None:
        """The work of a task that another server began, where the very same contract is served here."""
        try:
            request = json.loads(task.request or "")
            entry = self._toolbox.catalog.get(task.tool)
            if (entry.fingerprint, str(self._toolbox.settings.root)) != (request["contract"], request["root"]):
                return None
            call = ToolCall(entry.contract, request["arguments"], task.caller, request["client"])
        except (ValueError, TypeError, KeyError, PraxisError):
            return None
        return self._work(call) if call.contract.retry == "safe" else None

    def _work(self, call: ToolCall) -> Work:
        async def work(say: Say) -> Outcome | None:
            return await self._carry_out(call, say)

        return work

    async def _carry_out(self, call: ToolCall, say: Say) -> Outcome | None:
        from praxis_mcp.execution.tasks.task import Outcome

        async def send(progress: float, total: float | None, message: str | None) -> None:
            numbers = f"{progress:g}/{total:g}" if total is not None else ""
            if text := " ".join(part for part in (numbers, message) if part):
                say(text)

        is_data = call.contract.output == "json"
        reporter = ProgressReporter(send, heartbeat=math.inf, stdout_is_data=is_data)
        try:
            async with reporting(reporter):
                result = await self._perform(call, Dialect(LATEST_MODERN_VERSION), reporter)
        except RunCancelled:
            return None
        except PraxisError as exc:
            result = error_result(exc)
        except MCPError as exc:
            error = exc.error.model_dump(by_alias=True, mode="json", exclude_none=True)
            return Outcome(error=json.dumps(error), message=exc.error.message)
        except Exception as exc:  # noqa: BLE001 - one task's defect must not take the others with it
            result = refusal(report_defect(f"{call.contract.name} ran as a task", exc))
        most = self._toolbox.settings.tasks.max_result
        return Outcome(result=await anyio.to_thread.run_sync(kept_result, result, most))


def kept_result(result: CallToolResult, most: int) -> str:
    """A result as it is kept: as the client would have got it. One that is too long becomes an error that says where
    the rest is."""
    text = _text(result)
    if len(text) <= most:
        return text
    links = [block for block in result.content if block.type == "resource_link"]
    run = (result.meta or {}).get(META_KEY, {}).get("runId")
    where = f" What it wrote is at praxis://runs/{run}." if run else ""
    short = refusal(
        f"The result takes {counted(len(text), 'byte')}, and {counted(most, 'byte')} of one are kept "
        f"(tasks.max_result).{where}"
    )
    return _text(short.model_copy(update={"content": [*short.content, *links[:20]], "meta": result.meta}))


def _text(result: CallToolResult) -> str:
    dumped = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return json.dumps(serialize_server_result("tools/call", LATEST_MODERN_VERSION, dumped), separators=(",", ":"))
