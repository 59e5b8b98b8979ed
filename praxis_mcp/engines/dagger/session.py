"""A session with a Dagger engine, queried by every call; opened when first needed, in a task of its own, replaced when
it is old or broken, closed within a bound."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from praxis_mcp.engines.dagger.cli import CliSession, find_cli, probe_engine, runner_host, session_in_environment
from praxis_mcp.engines.dagger.errors import QueryFailed, SessionLost, check_version, opening_failed
from praxis_mcp.engines.dagger.logs import LogReader
from praxis_mcp.engines.dagger.query import INTROSPECTION, Field, Operation, Schema, chain, value_at
from praxis_mcp.engines.dagger.sdk import Connection, sdk_installed, sdk_missing
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.settings.sections import DaggerSettings
from praxis_mcp.support.logs import logger, places
from praxis_mcp.support.text import counted

MAX_CALLS = 64
"""Calls in a session at once: the engine itself has no limit, and the client's pool ends at 100 connections."""
FIRST_BACKOFF = 0.25
"""Seconds until a failed opening is tried again; doubled by each further failure."""
LONGEST_BACKOFF = 30.0
RETRY_PATIENCE = 1.0
"""Seconds that a call waits for the next try; a call that would wait longer fails with the last reason."""
SESSIONS_CLOSE_TIMEOUT = 15.0
"""Seconds that closing takes at most; what is still running then is cancelled, its processes killed."""
SESSION_DRAIN_TIMEOUT = 3600.0
"""Seconds that a replaced session waits for the calls that still use it: none lasts longer."""

_T = TypeVar("_T")


class Session:
    """An open session. Ids that queries give are valid in it alone, so what is made once is kept here (`once`)."""

    def __init__(self, connection: Connection, logs: LogReader, on_lost: Callable[[], None]) -> None:
        self._connection = connection
        self.logs = logs
        self._on_lost = on_lost
        self._made: dict[Hashable, Any] = {}
        self._locks: dict[Hashable, anyio.Lock] = {}
        self.is_lost = False
        self.schema = Schema({"__schema": {"types": []}})
        self.version = ""

    async def load_schema(self) -> None:
        """Learn the engine's version and the spelling of its API.

        Raises:
            EngineUnavailable: it is too old, or broke off.
        """
        self.version = (await self.execute(Operation("{ version }", {})))["version"]
        check_version(self.version)
        self.schema = Schema(await self.execute(INTROSPECTION))

    async def query(self, *fields: Field, traceparent: str = "") -> dict[str, Any]:
        """Ask for fields of the API's root. Cancelling it cancels what the engine does for it.

        Args:
            fields: what to ask for.
            traceparent: the trace that logs of it belong to (W3C Trace Context).

        Raises:
            QueryFailed: the engine cannot or will not.
            SessionLost: the session broke; the query may have run.
            EngineUnavailable: this engine's API lacks a field.
        """
        try:
            operation = self.schema.operation(*fields)
        except LookupError as exc:
            raise EngineUnavailable(
                f"The Dagger engine {self.version} has no {exc.args[0]}.", remedy="Upgrade CLI and engine."
            ) from exc
        return await self.execute(operation, traceparent)

    async def select(self, steps: Sequence[Field], *fields: Field, traceparent: str = "") -> Any:
        """What fields have at the end of a chain of steps, by name; as `query`."""
        answer = await self.query(chain(steps, *fields), traceparent=traceparent)
        return value_at(answer, *(step.alias or step.name for step in steps))

    async def execute(self, operation: Operation, traceparent: str = "") -> dict[str, Any]:
        """As `query`, with an operation that is built already."""
        if self.is_lost:
            raise self._lost_error()
        try:
            return await self._connection.execute(operation, traceparent)
        except ConnectionError as exc:
            self.mark_lost()
            raise self._lost_error() from exc

    async def once(self, key: Hashable, make: Callable[[], Awaitable[_T]]) -> _T:
        """What `make` gives, made once a session; those who ask meanwhile wait for the first. Failures are not
        kept."""
        if key not in self._made:
            async with self._locks.setdefault(key, anyio.Lock()):
                if key not in self._made:
                    self._made[key] = await make()
            self._locks.pop(key, None)
        return self._made[key]

    def recall(self, key: Hashable) -> Any:
        """What `remember` last got under this key, or None."""
        return self._made.get(key)

    def remember(self, key: Hashable, value: Any) -> None:
        """Keep something for as long as the session lasts."""
        self._made[key] = value

    def mark_lost(self) -> None:
        """Mark it broken: later queries fail at once, and the next call gets another."""
        if not self.is_lost:
            self.is_lost = True
            self._on_lost()

    @staticmethod
    def _lost_error() -> SessionLost:
        return SessionLost(
            "The Dagger session broke off while the call was using it; the tool may have run, and is not run again.",
            remedy="Call again: a new session is opened. If it happens again, look at the Dagger engine's log.",
        )


class SessionOwner:
    """The one task in which a session lives: `run` opens it, waits until it is retired, lets the calls that use it
    end, and closes it."""

    def __init__(
        self, settings: DaggerSettings, on_settled: Callable[[SessionOwner], None], on_lost: Callable[[], None]
    ) -> None:
        """
        Args:
            settings: how to reach the engine.
            on_settled: called when the session is open, or could not be opened: see `error`.
            on_lost: called when the session breaks.
        """
        self.settings = settings
        self.session: Session | None = None
        self.error: EngineUnavailable | None = None
        self.settled = anyio.Event()
        self.opened_at = 0.0
        self.calls = 0
        self._users = 0
        self._retired = anyio.Event()
        self._unused = anyio.Event()
        self._on_settled = on_settled
        self._on_lost = on_lost
        self._life = anyio.CancelScope()
        self._cli: CliSession | None = None
        self._connection: Connection | None = None

    @property
    def is_usable(self) -> bool:
        """Whether a call may use it."""
        return self.session is not None and not self.session.is_lost and not self._retired.is_set()

    def enter(self) -> Session:
        """A call begins to use it; only where `is_usable`."""
        assert self.session is not None
        self.calls += 1
        self.hold()
        return self.session

    def hold(self) -> None:
        """Something else than a call begins to use it; only where `is_usable`."""
        self._users += 1

    def leave(self) -> None:
        """That use has ended."""
        self._users -= 1
        if self._retired.is_set() and self._users == 0:
            self._unused.set()

    def retire(self) -> None:
        """No further call gets it; it closes when those that use it have ended."""
        self._retired.set()
        if self._users == 0:
            self._unused.set()

    def abort(self) -> None:
        """Close without waiting for the session to open, or for the calls that use it."""
        self._life.cancel()

    async def run(self) -> None:
        """Live through it; returns when all is closed."""
        try:
            with self._life:
                async with anyio.create_task_group() as tasks:
                    await self._live(tasks)
                    tasks.cancel_scope.cancel()
        finally:
            if self.session is None and self.error is None:
                self._fail(EngineUnavailable("The Dagger engine was closed before its session was open."))
            if self._connection is not None:
                await self._connection.close()
            if self._cli is not None:
                await self._cli.end(at_once=self.session is None)

    async def _live(self, tasks: TaskGroup) -> None:
        try:
            with anyio.fail_after(self.settings.connect_timeout):
                await self._open(tasks)
        except TimeoutError:
            failure = opening_failed(self._cli.stderr_tail if self._cli else "", runner_host(self.settings))
            limit = f"No Dagger session within {self.settings.connect_timeout:g} s."
            self._fail(EngineUnavailable(f"{limit} {failure.message}", remedy=failure.remedy))
        except EngineUnavailable as exc:
            self._fail(exc)
        except QueryFailed as exc:
            self._fail(EngineUnavailable(f"The Dagger engine does not introduce itself: {exc.message}."))
        else:
            await self._retired.wait()
            with anyio.move_on_after(SESSION_DRAIN_TIMEOUT):
                await self._unused.wait()

    async def _open(self, tasks: TaskGroup) -> None:
        if not sdk_installed():
            raise sdk_missing()
        address = session_in_environment()
        if address is None:
            find_cli(self.settings)
            await probe_engine(runner_host(self.settings), os.environ.get("DOCKER_HOST"))
            self._cli = await CliSession.start(self.settings)
            tasks.start_soon(self._cli.listen)
            address = await self._cli.address()
        if address is None:
            raise await self._read_failure(self._cli)
        self._connection = await Connection.open(address)
        logs = LogReader(address)
        session = Session(self._connection, logs, self._on_lost)
        await session.load_schema()
        tasks.start_soon(logs.run)
        if self._cli is not None:
            tasks.start_soon(self._watch, self._cli, session)
        self.session = session
        self.opened_at = anyio.current_time()
        self._on_settled(self)
        self.settled.set()

    def _fail(self, error: EngineUnavailable) -> None:
        self.error = error
        self._on_settled(self)
        self.settled.set()

    async def _read_failure(self, cli: CliSession | None) -> EngineUnavailable:
        if cli is not None:
            with anyio.move_on_after(1):  # so that all that it wrote is in
                await cli.wait()
                await anyio.sleep(0.05)
        return opening_failed(cli.stderr_tail if cli else "", runner_host(self.settings))

    @staticmethod
    async def _watch(cli: CliSession, session: Session) -> None:
        await cli.wait()
        session.mark_lost()


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the session: `open` (with `version`, `calls`, `age` in seconds), `failed` (with `error`), or
    neither yet."""

    open: bool = False
    version: str = ""
    calls: int = 0
    age: float = 0.0
    error: EngineUnavailable | None = None


class SessionManager:
    """The session of one engine. `settings` is called for every session; `on_retired` is called with a session that no
    further call gets, and which closes when nobody uses it any more."""

    def __init__(self, settings: Callable[[], DaggerSettings], on_retired: Callable[[Session], None]) -> None:
        self._settings = settings
        self._on_retired = on_retired
        self._current: SessionOwner | None = None
        self._opening: SessionOwner | None = None
        self._tasks: dict[asyncio.Task[None], SessionOwner] = {}
        self._slots = anyio.Semaphore(MAX_CALLS)
        self._failures = 0
        self._not_before = 0.0
        self._error: EngineUnavailable | None = None

    def health(self) -> Health:
        """What is known of the session, without asking."""
        if self._current is not None and self._current.is_usable and self._current.session is not None:
            age = anyio.current_time() - self._current.opened_at
            return Health(True, self._current.session.version, self._current.calls, age)
        return Health(error=self._error)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Session]:
        """The session, for one call.

        Raises:
            EngineUnavailable: none can be opened; says why.
        """
        async with self._slots:
            owner = await self._usable_owner()
            session = owner.enter()
            try:
                yield session
            finally:
                owner.leave()

    @property
    def current(self) -> Session | None:
        """The session that calls get; None where the next one opens one."""
        return self._current.session if self._current is not None and self._current.is_usable else None

    def is_current(self, session: Session) -> bool:
        """Whether calls get this session."""
        return self.current is session

    @contextmanager
    def use(self, session: Session) -> Iterator[None]:
        """Keep a session open for something else than a call.

        Raises:
            SessionLost: calls get it no longer.
        """
        owner = self._current
        if owner is None or not self.is_current(session):
            raise SessionLost("The Dagger session has been replaced.")
        owner.hold()
        try:
            yield
        finally:
            owner.leave()

    def replace(self) -> None:
        """Let the next call open a new session (the settings have changed); calls in the old one end in peace."""
        self._failures, self._not_before, self._error = 0, 0.0, None
        self._opening = None
        self._retire(self._current)

    async def close(self) -> None:
        """Close every session, within about `SESSIONS_CLOSE_TIMEOUT`. May be opened again afterwards."""
        self._current = self._opening = None
        self._failures, self._not_before, self._error = 0, 0.0, None
        tasks = list(self._tasks)
        for owner in self._tasks.values():
            owner.retire()
            if owner.session is None:
                owner.abort()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=SESSIONS_CLOSE_TIMEOUT)
        for task in late:
            logger.warning("a Dagger session has not closed within {} s and is broken off", SESSIONS_CLOSE_TIMEOUT)
            self._tasks[task].abort()
        if late:
            await asyncio.wait(late, timeout=SESSIONS_CLOSE_TIMEOUT)

    async def _usable_owner(self) -> SessionOwner:
        while True:
            if self._current is not None and self._current.is_usable:
                may_open = self._opening is None and anyio.current_time() >= self._not_before
                if may_open and self._should_rotate(self._current):
                    self._open()  # calls go on in the old one until the new one is there
                return self._current
            opening = self._opening
            if opening is None:
                await self._wait_for_backoff()
                # Another call may have been quicker.
                if self._opening is None and not (self._current is not None and self._current.is_usable):
                    self._open()
                continue
            await opening.settled.wait()
            if opening.error is not None:
                raise EngineUnavailable(opening.error.message, remedy=opening.error.remedy) from opening.error

    async def _wait_for_backoff(self) -> None:
        wait = self._not_before - anyio.current_time()
        if wait > RETRY_PATIENCE and self._error is not None:
            raise EngineUnavailable(
                f"{self._error.message} (Tried {counted(self._failures, 'time')}; the next try is in {wait:.0f} s.)",
                remedy=self._error.remedy,
            ) from self._error
        if wait > 0:
            await anyio.sleep(wait)

    def _should_rotate(self, owner: SessionOwner) -> bool:
        settings = owner.settings
        age = anyio.current_time() - owner.opened_at
        return owner.calls >= settings.rotate_after_calls or age >= settings.rotate_after

    def _open(self) -> None:
        owner = SessionOwner(self._settings(), self._settled, self._lost)
        self._opening = owner
        # The engine belongs to no task group: the call that opens it may be cancelled, and the session must outlive it.
        task = asyncio.create_task(owner.run(), name="dagger session")
        self._tasks[task] = owner
        task.add_done_callback(self._ended)

    def _settled(self, owner: SessionOwner) -> None:
        if self._opening is not owner:  # closed or replaced meanwhile
            owner.retire()
            return
        self._opening = None
        if owner.error is not None:
            self._failures += 1
            self._not_before = anyio.current_time() + min(FIRST_BACKOFF * 2 ** (self._failures - 1), LONGEST_BACKOFF)
            self._error = owner.error
            return
        replaced, self._current = self._current, owner
        self._failures, self._not_before, self._error = 0, 0.0, None
        if replaced is not None:
            logger.debug("a new Dagger session replaces one of {} calls", replaced.calls)
            self._retire(replaced)

    def _lost(self) -> None:
        if self._current is not None and not self._current.is_usable:
            logger.warning("the Dagger session broke off after {} calls", self._current.calls)
            self._retire(self._current)

    def _retire(self, owner: SessionOwner | None) -> None:
        if owner is None:
            return
        owner.retire()
        if self._current is owner:
            self._current = None
        if owner.session is not None:
            self._on_retired(owner.session)

    def _ended(self, task: asyncio.Task[None]) -> None:
        owner = self._tasks.pop(task)
        if not task.cancelled() and (crash := task.exception()) is not None:
            logger.error("the task of a Dagger session ended by an error: {}", places(crash))
            if owner.session is not None:
                owner.session.mark_lost()
