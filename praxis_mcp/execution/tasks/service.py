"""Tasks: calls that go on without their clients, and are found again by any server on the same store.

A task is in the store before its id is given out, with the id of the server that runs it. Whether that lives is known
as for runs (`execution.records.store`); what it has not brought to an end, the next one ends, or runs again.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import anyio
import anyio.abc

from praxis_mcp.errors import RecordsUnavailable, RunNotFoundError
from praxis_mcp.execution.records.access import ACCESS_TIMEOUT
from praxis_mcp.execution.records.row import storable_name
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.execution.tasks.table import TaskBounds, TaskTable
from praxis_mcp.execution.tasks.task import INTERNAL_ERROR, WORKING, Outcome, StoredTask
from praxis_mcp.settings.sections import TaskSettings
from praxis_mcp.support.logs import logger, report_defect

CANCEL_EVERY = 0.5
"""Seconds between two looks for tasks of this server whose end another one was asked for."""
LOOK_LAST = 60.0
"""The same where a defect keeps them from succeeding: each time twice as long."""
SAY_EVERY = 2.0
"""Seconds between two writes of what the tasks of this server are busy with."""
SETTLE_EVERY = 15.0
"""Seconds between two looks for tasks of servers that are gone, and for those whose time has come."""
MOST_ATTEMPTS = 3
"""How often a task is begun at most: its tool may be what ends its servers."""
TAKEN_WITHIN = 60.0
"""Seconds that a task which may be run again waits for a server that has its contract."""
END_WITHIN = 60.0
"""Seconds for which the end of a task is tried to be written, where the store cannot be used."""
_RETRY_FIRST, _RETRY_LAST = 0.25, 5.0
SHUTDOWN_WITHIN = 3.0
"""Seconds that the ends of tasks may take to be written at shutdown."""
_NOT_BEGUN = 2 * ACCESS_TIMEOUT
"""Seconds after which a task of this server that does not run here will not: its start or end was not recorded."""
_ID = re.compile(r"[0-9a-f]{32}")
MAX_STATUS_TEXT = 300
"""Characters of what a task is said to be busy with."""

SERVER_LOST = (
    "The server that ran it has ended before it had; what it had done by then is not known. A contract whose tasks may "
    "be run again says so by retry: safe."
)
SHUT_DOWN = "The server was shut down before it had ended, and has ended it."
NOT_RECORDED = "Its beginning or its end could not be recorded."
NOT_KEPT = "It has ended, but what it has come to could not be recorded."
TOO_LATE = "It did not end in the time that a task has."

T = TypeVar("T")
Say = Callable[[str], None]
"""Takes what a task is busy with."""
Work = Callable[[Say], Awaitable[Outcome | None]]
"""Does the work of a task, and says meanwhile what it is busy with; None is that somebody has cancelled it."""
Again = Callable[[StoredTask], Work | None]
"""Finds the work of a task that another server began; None where this one cannot do it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A task to be.

    Attributes:
        tool: what is called.
        caller: who calls. Empty is anonymous.
        timeout: seconds that its work may take.
        request: JSON of what is needed to run it again; None where that is not allowed.
    """

    tool: str
    caller: str
    timeout: float
    request: str | None = None


@dataclass(slots=True, eq=False)
class _Running:
    is_again: bool
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    is_cancelled: bool = False
    message: str | None = None
    is_written: bool = True

    def say(self, text: str) -> None:
        self.message, self.is_written = text[:MAX_STATUS_TEXT], False

    def cancel(self) -> None:
        self.is_cancelled = True
        self.scope.cancel()


class TaskService:
    """The tasks of one server, and a way to those of others on the same store; see `run`.

    Args:
        store: has the tasks.
        settings: how much is kept.
        again: see `Again`.

    Attributes:
        takes_over: whether it looks after tasks of servers that are gone.
    """

    def __init__(self, store: RecordStore, settings: TaskSettings, again: Again) -> None:
        self._store = store
        self._settings = settings
        self._again = again
        self._bounds = TaskBounds(settings.max_per_caller, settings.max_tasks, settings.max_bytes)
        self.takes_over = True
        self._running: dict[str, _Running] = {}
        self._waiting_since: dict[str, float] = {}
        self._group: anyio.abc.TaskGroup | None = None
        self._is_ready = anyio.Event()
        self._is_busy = anyio.Event()
        self._is_idle = anyio.Event()
        self._changed = anyio.Event()

    async def run(self) -> None:
        """Run tasks, and look after those of servers that are gone, until cancelled. What runs then is ended; what may
        be run again is left to the next server."""
        self._store.writer.wake()  # and so this server is known to live
        async with anyio.create_task_group() as self._group:
            self._is_ready.set()
            self._group.start_soon(self._follow)
            while True:
                await self._look_after()
                await anyio.sleep(SETTLE_EVERY)

    async def idle(self) -> None:
        """Wait until no task runs here."""
        while self._running:
            self._is_idle = anyio.Event()
            await self._is_idle.wait()

    async def start(self, order: Order, work: Work) -> StoredTask:
        """A new task, which has begun, and is in the store.

        Raises:
            QueueFull: too many have not ended.
            RecordsUnavailable: it cannot be kept; nothing has begun.
        """
        await self._is_ready.wait()
        assert self._group is not None
        now, ttl = time.time(), self._settings.ttl
        task = StoredTask(
            id=secrets.token_hex(16),
            server=self._store.server,
            caller=order.caller,
            tool=order.tool,
            status=WORKING,
            message=None,
            created=now,
            updated=now,
            expires=now + order.timeout + ttl,
            kept=ttl,
            request=order.request,
        )
        # A caller who leaves now must not leave a task that nobody runs.
        with anyio.CancelScope(shield=True):
            try:
                await self._do(lambda table: table.create(task))
            except RecordsUnavailable:
                # It may be written yet, where the disk was only slow.
                self._group.start_soon(self._end, task, Outcome(error=_error("It could not be recorded in time.")))
                raise
            self._begin(task, work)
        return task

    async def get(self, task_id: str, caller: str) -> StoredTask:
        """A task of that caller, as it is now.

        Raises:
            RunNotFoundError: they have none of that id (any more).
            RecordsUnavailable: it cannot be read.
        """
        task = await self._find(task_id, caller)
        if not task.has_ended and task.server != self._store.server:
            if await self._settle(task.server):
                task = await self._find(task_id, caller)
        elif (running := self._running.get(task_id)) is not None and running.message is not None:
            task = replace(task, message=running.message)
        return task

    async def cancel(self, task: StoredTask) -> None:
        """Ask for the end of a task that `get` has found, whichever server runs it. One that has ended stays as it is.

        Raises:
            RecordsUnavailable: that cannot be written.
        """
        if not task.has_ended:
            await self._do(lambda table: table.ask_cancel(task.id))
            if (running := self._running.get(task.id)) is not None:
                running.cancel()

    async def changes(self, ids: Sequence[str]) -> dict[str, tuple[float, str]]:
        """See `TaskTable.changes`."""
        return await self._do(lambda table: table.changes(ids))

    async def wait_for_change(self, seconds: float) -> None:
        """Wait until a task of this server has ended, or so long."""
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    def _begin(self, task: StoredTask, work: Work) -> None:
        assert self._group is not None
        self._running[task.id] = running = _Running(is_again=task.request is not None)
        self._is_busy.set()
        self._group.start_soon(self._perform, task, running, work)

    async def _perform(self, task: StoredTask, running: _Running, work: Work) -> None:
        outcome: Outcome | None = None
        try:
            running.scope.deadline = anyio.current_time() + max(0.0, task.expires - task.kept - time.time())
            with running.scope:
                outcome = await work(running.say)
            if running.scope.cancelled_caught and not running.is_cancelled:
                outcome = Outcome(error=_error(TOO_LATE), message=TOO_LATE)
        except anyio.get_cancelled_exc_class():
            if running.is_again:
                self._store.leaves_tasks = True
            else:
                outcome = Outcome(error=_error(SHUT_DOWN), message=SHUT_DOWN)
                await self._end(task, outcome, within=SHUTDOWN_WITHIN)
            raise
        except Exception as exc:  # noqa: BLE001 - one task's defect must not take the others with it
            text = report_defect(f"a task of {task.tool} was carried out", exc)
            await self._end(task, Outcome(error=_error(text), message=text))
        else:
            await self._end(task, outcome)
        finally:
            del self._running[task.id]
            if not self._running:
                self._is_idle.set()

    async def _end(self, task: StoredTask, outcome: Outcome | None, within: float | None = None) -> None:
        """Write how a task has ended; raises nothing. Where that is not possible, `_settle_own` ends it later on."""
        delay, limit = _RETRY_FIRST, anyio.current_time() + END_WITHIN
        # Shielded: what a task has come to must not be lost because the server is about to end.
        with anyio.move_on_after(within, shield=True) as scope:
            while True:
                try:
                    await self._write_end(task, outcome)
                    break
                except RecordsUnavailable as exc:
                    if delay == _RETRY_FIRST:
                        logger.warning("the end of a task of {} is not recorded for now: {}", task.tool, exc)
                    if anyio.current_time() > limit:
                        logger.error("the end of a task of {} is lost: {}", task.tool, exc)
                        break
                except Exception as exc:  # noqa: BLE001 - a value that no database takes, say: no later try helps
                    report_defect(f"the end of a task of {task.tool} was recorded", exc)
                    if outcome == _UNKEPT:
                        break
                    outcome = _UNKEPT
                    continue
                scope.shield = within is not None  # else the end of the server comes first from now on
                await anyio.sleep(delay)
                delay = min(_RETRY_LAST, delay * 2)
        self._announce()

    async def _write_end(self, task: StoredTask, outcome: Outcome | None) -> None:
        await self._do(lambda table: table.end(task.id, self._store.server, outcome, time.time()))

    def _announce(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _follow(self) -> None:
        """Cancel what other servers were asked to, and write down what is being done."""
        wrote, pause = anyio.current_time(), CANCEL_EVERY
        while True:
            self._is_busy = anyio.Event()
            if not self._running:
                await self._is_busy.wait()
            await anyio.sleep(pause)
            try:
                begun = dict(self._running)
                own = await self._do(lambda table: table.working_of(self._store.server))
                for task_id, running in begun.items():
                    # One that is not its own any more was taken over while nothing was received from this server.
                    if own.get(task_id, True):
                        running.cancel()
                if anyio.current_time() - wrote >= SAY_EVERY:
                    wrote = anyio.current_time()
                    await self._write_messages()
                pause = CANCEL_EVERY
            except RecordsUnavailable as exc:
                logger.debug("tasks could not be looked at: {}", exc)
            except Exception as exc:  # noqa: BLE001 - what runs goes on, and can still be cancelled
                report_defect("tasks were looked at", exc)
                pause = min(2 * pause, LOOK_LAST)

    async def _write_messages(self) -> None:
        messages: list[tuple[str, str]] = []
        for task_id, running in self._running.items():
            if not running.is_written and running.message is not None:
                messages.append((task_id, running.message))
                running.is_written = True
        if messages:
            await self._do(lambda table: table.say(messages, self._store.server, time.time()))

    async def _look_after(self) -> None:
        try:
            for server in await self._do(lambda table: table.servers()):
                try:
                    if server != self._store.server:
                        await self._settle(server)
                    else:
                        await self._settle_own()
                except RecordsUnavailable:
                    raise
                except Exception as exc:  # noqa: BLE001 - the tasks of others are looked after all the same
                    report_defect("the tasks of a server were looked after", exc)
            await self._do(lambda table: table.expire(time.time()))
        except RecordsUnavailable as exc:
            logger.debug("tasks were not looked after: {}", exc)

    async def _settle(self, server: str) -> bool:
        """Where a server is gone, end its tasks or run them again; whether that was done."""
        if not self.takes_over:
            return False

        def left(database: SqlDatabase) -> list[StoredTask] | None:
            with self._store.gone(database, server) as is_gone:
                if not is_gone:
                    return None
                # Else its callers would have too many under way for the tasks that are run again here.
                database.forget_holder(server)
                return TaskTable(database, self._bounds).open_of(server)

        tasks = await self._store.access.run(left)
        for task in tasks or ():
            await self._settle_one(task)
        return tasks is not None

    async def _settle_own(self) -> None:
        now, own = time.time(), await self._do(lambda table: table.open_of(self._store.server))
        lost = [each.id for each in own if each.id not in self._running and each.updated < now - _NOT_BEGUN]
        outcome = Outcome(error=_error(NOT_RECORDED), message=NOT_RECORDED)
        await self._do(lambda table: [table.end(key, self._store.server, outcome, now) for key in lost])

    async def _settle_one(self, task: StoredTask) -> None:
        if task.id in self._running:  # it was taken over from this server, which has yet to see that
            return
        now = time.time()
        outcome: Outcome | None = Outcome(error=_error(SERVER_LOST), message=SERVER_LOST)
        if task.is_cancelled:
            outcome = None
        elif task.request is not None and task.attempts < MOST_ATTEMPTS and task.expires - task.kept > now:
            work = self._again(task)
            if work is None and anyio.current_time() < self._waits_until(task.id):
                return
            if work is not None:
                if await self._do(lambda table: table.claim(task, self._store.server, now)):
                    logger.info("a task of {} runs again: the server that ran it has ended", task.tool)
                    self._begin(replace(task, server=self._store.server), work)
                return
        self._waiting_since.pop(task.id, None)
        if await self._do(lambda table: table.end(task.id, task.server, outcome, now)):
            logger.warning("a task of {} is lost: the server that ran it has ended", task.tool)

    def _waits_until(self, task_id: str) -> float:
        now = anyio.current_time()
        # What others took over in the meantime is not asked for again, and forgotten here.
        self._waiting_since = {key: at for key, at in self._waiting_since.items() if at > now - 2 * TAKEN_WITHIN}
        return self._waiting_since.setdefault(task_id, now) + TAKEN_WITHIN

    async def _find(self, task_id: str, caller: str) -> StoredTask:
        # Anything else was never given out, and might be what a database does not take.
        task = await self._do(lambda table: table.find(task_id)) if _ID.fullmatch(task_id) else None
        if task is None or task.caller != storable_name(caller) or (task.has_ended and task.expires < time.time()):
            raise no_such_task()
        return task

    async def _do(self, work: Callable[[TaskTable], T]) -> T:
        return await self._store.access.run(lambda database: work(TaskTable(database, self._bounds)))


def no_such_task() -> RunNotFoundError:
    """There is none of that id, or it is not the caller's: which of these, nobody learns."""
    return RunNotFoundError("There is no such task of yours (any more).")


def _error(message: str) -> str:
    return json.dumps({"code": INTERNAL_ERROR, "message": message})


_UNKEPT = Outcome(error=_error(NOT_KEPT), message=NOT_KEPT)
