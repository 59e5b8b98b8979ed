"""The task in which a session lives: it opens the session, keeps it, and closes it within a bound."""

from __future__ import annotations

import os
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from praxis_mcp.engines.dagger.cli import CliSession, find_cli, runner_host, session_in_environment
from praxis_mcp.engines.dagger.errors import QueryFailed, opening_failed
from praxis_mcp.engines.dagger.logs import LogReader
from praxis_mcp.engines.dagger.reach import check_engine
from praxis_mcp.engines.dagger.sdk import Connection, sdk_installed, sdk_missing
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.settings.model import DaggerSettings

SESSION_DRAIN_TIMEOUT = 3600.0
"""Seconds that a replaced session waits for the calls that still use it: none lasts longer."""


class SessionOwner:
    """The one task in which a session lives: `run` opens it, waits until it is retired, lets the calls that use it
    end, and closes it."""

    def __init__(
        self, settings: DaggerSettings, on_settled: Callable[[SessionOwner], None], on_lost: Callable[[], None]
    ) -> None:
        """
        Args:
            settings: how to reach the engine.
            on_settled: hears of it when the session is open, or could not be opened: see `error`.
            on_lost: hears that the session broke.
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
    def usable(self) -> bool:
        """Whether a call may use it."""
        return self.session is not None and not self.session.lost and not self._retired.is_set()

    def enter(self) -> Session:
        """A call begins to use it; only where `usable`."""
        assert self.session is not None
        self.calls += 1
        self.hold()
        return self.session

    def hold(self) -> None:
        """Something that is no call begins to use it; only where `usable`."""
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

    def break_off(self) -> None:
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
            said = opening_failed(self._cli.last_words if self._cli else "", runner_host(self.settings))
            limit = f"No Dagger session within {self.settings.connect_timeout:g} s."
            self._fail(EngineUnavailable(f"{limit} {said.message}", remedy=said.remedy))
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
            await check_engine(runner_host(self.settings), os.environ.get("DOCKER_HOST"))
            self._cli = await CliSession.start(self.settings)
            tasks.start_soon(self._cli.listen)
            address = await self._cli.address()
        if address is None:
            raise await self._silent(self._cli)
        self._connection = await Connection.open(address)
        logs = LogReader(address)
        session = Session(self._connection, logs, self._on_lost)
        await session.introduce()
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

    async def _silent(self, cli: CliSession | None) -> EngineUnavailable:
        if cli is not None:
            with anyio.move_on_after(1):  # so that its last words are in
                await cli.wait()
                await anyio.sleep(0.05)
        return opening_failed(cli.last_words if cli else "", runner_host(self.settings))

    @staticmethod
    async def _watch(cli: CliSession, session: Session) -> None:
        await cli.wait()
        session.lose()
