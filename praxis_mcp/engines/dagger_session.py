"""One session with a Dagger engine: opened and closed by the task that owns it, queried by every call.

The only module that speaks to the Dagger SDK and to its GraphQL client. Their retries are off: one would run a tool
twice.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from praxis_mcp.engines.dagger_cli import CliSession, SessionAddress, find_cli, runner_host, session_in_environment
from praxis_mcp.engines.dagger_errors import QueryFailed, SessionLost, check_version, opening_failed
from praxis_mcp.engines.dagger_query import INTROSPECTION, Field, Operation, Schema
from praxis_mcp.engines.dagger_reach import check_engine
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.settings import DaggerSettings

if TYPE_CHECKING:
    from gql.client import AsyncClientSession

_T = TypeVar("_T")

SDK_MISSING = EngineUnavailable(
    "The Dagger SDK is not installed.", remedy="Install it: pip install 'praxis-mcp[dagger]'."
)
CONNECT_TIMEOUT = 10.0
"""Seconds to reach a session on this machine's loopback; queries themselves have no limit here, calls have."""
DRAIN_TIMEOUT = 3600.0
"""Seconds that a replaced session waits for the calls that still use it: none lasts longer."""
CLOSE_TIMEOUT = 10.0
"""Seconds to close a connection."""


def sdk_installed() -> bool:
    """Whether SDK and GraphQL client can be imported; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in ("dagger", "gql"))


class Session:
    """An open session. Ids that queries give are valid in it alone, so what is made once is kept here (`once`)."""

    def __init__(self, graphql: AsyncClientSession, on_lost: Callable[[], None]) -> None:
        self._graphql = graphql
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

    async def query(self, *fields: Field) -> dict[str, Any]:
        """Ask for fields of the API's root. Cancelling it cancels what the engine does for it.

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
        return await self.execute(operation)

    async def execute(self, operation: Operation) -> dict[str, Any]:
        """As `query`, with an operation that is built already."""
        from gql.transport import exceptions

        if self.lost:
            raise self._loss()
        try:
            return await self._graphql.execute(_request_type()(operation.text, operation.variables))
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


class SessionOwner:
    """The one task in which a session lives: `run` opens it, waits until it is retired, lets the calls that use it
    end, and closes it."""

    def __init__(
        self, settings: DaggerSettings, on_open: Callable[[SessionOwner], None], on_lost: Callable[[], None]
    ) -> None:
        self.settings = settings
        self.session: Session | None = None
        self.error: EngineUnavailable | None = None
        self.settled = anyio.Event()
        self.opened_at = 0.0
        self.calls = 0
        self._users = 0
        self._retired = anyio.Event()
        self._unused = anyio.Event()
        self._on_open = on_open
        self._on_lost = on_lost

    @property
    def usable(self) -> bool:
        """Whether a call may use it."""
        return self.session is not None and not self.session.lost and not self._retired.is_set()

    def enter(self) -> Session:
        """A call begins to use it; only where `usable`."""
        assert self.session is not None
        self.calls += 1
        self._users += 1
        return self.session

    def leave(self) -> None:
        """That call has ended."""
        self._users -= 1
        if self._retired.is_set() and self._users == 0:
            self._unused.set()

    def retire(self) -> None:
        """No further call gets it; it closes when those that use it have ended."""
        self._retired.set()
        if self._users == 0:
            self._unused.set()

    async def run(self) -> None:
        """Live through it; returns when all is closed. Raises nothing but cancellation: see `error`."""
        cli: CliSession | None = None
        graphql: _Connection | None = None
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    with anyio.fail_after(self.settings.connect_timeout):
                        address = session_in_environment()
                        if not sdk_installed():
                            raise EngineUnavailable(SDK_MISSING.message, remedy=SDK_MISSING.remedy)
                        if address is None:
                            find_cli(self.settings)
                            await check_engine(runner_host(self.settings), os.environ.get("DOCKER_HOST"))
                            cli = await CliSession.start(self.settings)
                            tasks.start_soon(cli.listen)
                            address = await cli.address()
                        if address is None:
                            raise await self._silent(cli)
                        graphql = await _Connection.open(address)
                        session = Session(graphql.session, self._on_lost)
                        await session.introduce()
                except TimeoutError:
                    said = opening_failed(cli.last_words if cli else "", runner_host(self.settings))
                    self.error = EngineUnavailable(
                        f"No Dagger session within {self.settings.connect_timeout:g} s. {said.message}",
                        remedy=said.remedy,
                    )
                except EngineUnavailable as exc:
                    self.error = exc
                except QueryFailed as exc:
                    self.error = EngineUnavailable(f"The Dagger engine does not introduce itself: {exc.message}.")
                else:
                    self.session = session
                    self.opened_at = anyio.current_time()
                    if cli is not None:
                        tasks.start_soon(self._watch, cli, session)
                    self._on_open(self)
                    self.settled.set()
                    await self._retired.wait()
                    with anyio.move_on_after(DRAIN_TIMEOUT):
                        await self._unused.wait()
                tasks.cancel_scope.cancel()
        finally:
            if self.session is None and self.error is None:
                self.error = EngineUnavailable("The Dagger engine was closed before its session was open.")
            self.settled.set()
            if graphql is not None:
                await graphql.close()
            if cli is not None:
                await cli.end(at_once=self.session is None)

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


class _Connection:
    """The SDK's client for one session."""

    def __init__(self, sdk: Any, session: AsyncClientSession) -> None:
        self._sdk = sdk
        self.session = session

    @classmethod
    async def open(cls, address: SessionAddress) -> _Connection:
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
        raise EngineUnavailable(SDK_MISSING.message, remedy=SDK_MISSING.remedy) from exc
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
