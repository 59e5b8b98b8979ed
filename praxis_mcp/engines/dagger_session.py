"""One session with a Dagger engine, queried by every call.

The only module that speaks to the Dagger SDK and to its GraphQL client. Their retries are off: one would run a tool
twice.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from praxis_mcp.engines.dagger_cli import SessionAddress
from praxis_mcp.engines.dagger_errors import QueryFailed, SessionLost, check_version
from praxis_mcp.engines.dagger_logs import LogReader, LogTap
from praxis_mcp.engines.dagger_query import INTROSPECTION, Field, Operation, Schema
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.installation import adding_extra

if TYPE_CHECKING:
    from gql.client import AsyncClientSession

_T = TypeVar("_T")

CONNECT_TIMEOUT = 10.0
"""Seconds to reach a session on this machine's loopback; queries themselves have no limit here, calls have."""
CLOSE_TIMEOUT = 10.0
"""Seconds to close a connection."""


def sdk_installed() -> bool:
    """Whether SDK and GraphQL client can be imported; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in ("dagger", "gql"))


def sdk_missing() -> EngineUnavailable:
    """The Dagger SDK is not installed."""
    return EngineUnavailable(
        f"The Dagger engine needs the Dagger SDK for Python, which {sys.executable} lacks.",
        remedy=f"Install it: {adding_extra('dagger')}",
    )


class Session:
    """An open session. Ids that queries give are valid in it alone, so what is made once is kept here (`once`)."""

    def __init__(self, graphql: AsyncClientSession, logs: LogReader, on_lost: Callable[[], None]) -> None:
        self._graphql = graphql
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
        from gql.transport import exceptions

        if self.lost:
            raise self._loss()
        try:
            request = _request_type()(operation.text, operation.variables)
            extra: dict[str, Any] = {"headers": {"traceparent": traceparent}} if traceparent else {}
            return await self._graphql.execute(request, extra_args=extra)
        except exceptions.TransportQueryError as exc:
            error: Mapping[str, Any] = exc.errors[0] if exc.errors else {"message": str(exc)}
            raise QueryFailed(str(error.get("message")), error.get("extensions") or {}) from exc
        except exceptions.TransportError as exc:
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


class Connection:
    """The SDK's client for one session. `session` is what queries go through."""

    def __init__(self, sdk: Any, session: AsyncClientSession) -> None:
        self._sdk = sdk
        self.session = session

    @classmethod
    async def open(cls, address: SessionAddress) -> Connection:
        """Connect to a session.

        Raises:
            EngineUnavailable: the SDK is missing.
        """
        sdk = await anyio.to_thread.run_sync(_new_client, address)  # the first one imports the SDK: a second or two
        # It would read the whole schema, build it and check every query against it: 0.3 s of a blocked event loop.
        client: Any = sdk.session.client
        client.fetch_schema_from_transport = False
        await sdk.connect()
        return cls(sdk, await sdk.session.get_session())

    async def close(self) -> None:
        """Close it, within `CLOSE_TIMEOUT`."""
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._sdk.close()


def _new_client(address: SessionAddress) -> Any:
    try:
        from dagger import Timeout
        from dagger.client._config import ConnectConfig
        from dagger.client._session import ConnectParams, SingleConnection
    except ImportError as exc:
        raise sdk_missing() from exc
    return SingleConnection(
        ConnectParams(port=address.port, session_token=address.token),
        ConnectConfig(retry=None, timeout=Timeout(None, connect=CONNECT_TIMEOUT)),
    )


@functools.cache
def _request_type() -> Any:
    from gql import GraphQLRequest

    class Ready(GraphQLRequest):
        """A request whose text is sent as it is; the library would parse it and print it again, 3 ms each time."""

        def __init__(self, text: str, variables: Mapping[str, Any]) -> None:
            self._text = text
            self.variable_values = dict(variables)
            self.operation_name = None

        @property
        def payload(self) -> dict[str, Any]:
            return {"query": self._text, "variables": self.variable_values}

    return Ready
