"""One session with a Dagger engine, queried by every call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio

from praxis_mcp.engines.dagger.errors import SessionLost, check_version
from praxis_mcp.engines.dagger.logs import LogReader, LogTap
from praxis_mcp.engines.dagger.query import INTROSPECTION, Field, Operation, Schema
from praxis_mcp.engines.dagger.sdk import Connection
from praxis_mcp.errors import EngineUnavailable

_T = TypeVar("_T")


class Session:
    """An open session. Ids that queries give are valid in it alone, so what is made once is kept here (`once`)."""

    def __init__(self, connection: Connection, logs: LogReader, on_lost: Callable[[], None]) -> None:
        self._connection = connection
        self._logs = logs
        self._on_lost = on_lost
        self._made: dict[Hashable, Any] = {}
        self._locks: dict[Hashable, anyio.Lock] = {}
        self.lost = False
        self.schema = Schema({"__schema": {"types": []}})
        self.version = ""

    async def introduce(self) -> None:
        """Learn the engine's version and the spelling of its API.

        Raises:
            EngineUnavailable: it is too old, or broke off.
        """
        self.version = (await self.execute(Operation("{ version }", {})))["version"]
        check_version(self.version)
        self.schema = Schema(await self.execute(INTROSPECTION))

    @asynccontextmanager
    async def listening(self, tap: LogTap) -> AsyncIterator[None]:
        """Let a tap hear what the query that carries its trace runs."""
        self._logs.open(tap)
        try:
            yield
        finally:
            self._logs.close(tap)

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

    async def execute(self, operation: Operation, traceparent: str = "") -> dict[str, Any]:
        """As `query`, with an operation that is built already."""
        if self.lost:
            raise self._loss()
        try:
            return await self._connection.execute(operation, traceparent)
        except ConnectionError as exc:
            self.lose()
            raise self._loss() from exc

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
        """What `remember` was last told under this key, or None."""
        return self._made.get(key)

    def remember(self, key: Hashable, value: Any) -> None:
        """Keep something for as long as the session lasts."""
        self._made[key] = value

    def lose(self) -> None:
        """Mark it broken: later queries fail at once, and the next call gets another."""
        if not self.lost:
            self.lost = True
            self._on_lost()

    @staticmethod
    def _loss() -> SessionLost:
        return SessionLost(
            "The Dagger session broke off while the call was using it; the tool may have run, and is not run again.",
            remedy="Call again: a new session is opened. If it happens again, look at the Dagger engine's log.",
        )
