"""The Dagger SDK and its GraphQL client: the only module that knows them. Their retries are off: one would run a tool
twice.

What a `dagger.Connection` makes inside of itself is made here directly, from private names that may go with any release
of the SDK: pyproject.toml bounds its version to what was run, and ``tests/test_sdks.py`` fails when one goes. Why not
`dagger.Connection`: it takes the address of a session from this process's environment, which is one for all sessions
and is inherited by every child, token and all; and it reads the whole schema, builds it and checks every query against
it, 0.3 s of a blocked event loop for each session.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from praxis_mcp.engines.dagger.cli import SessionAddress
from praxis_mcp.engines.dagger.errors import QueryFailed
from praxis_mcp.engines.dagger.query import Operation
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.support.installation import install_command_for_extra

if TYPE_CHECKING:
    from gql.client import AsyncClientSession

SESSION_CONNECT_TIMEOUT = 10.0
"""Seconds to reach a session on this machine's loopback; queries themselves have no limit here, calls have."""
DISCONNECT_TIMEOUT = 10.0
"""Seconds to close a connection."""


def sdk_installed() -> bool:
    """Whether SDK and GraphQL client can be imported; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in ("dagger", "gql"))


def sdk_missing() -> EngineUnavailable:
    """The Dagger SDK is not installed."""
    return EngineUnavailable(
        f"The Dagger engine needs the Dagger SDK for Python, which {sys.executable} lacks.",
        remedy=f"Install it: {install_command_for_extra('dagger')}",
    )


class Connection:
    """The SDK's connection to one session, which queries go through."""

    def __init__(self, sdk: Any, graphql: AsyncClientSession) -> None:
        self._sdk = sdk
        self._graphql = graphql

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
        """Close it, within `DISCONNECT_TIMEOUT`."""
        with anyio.move_on_after(DISCONNECT_TIMEOUT, shield=True):
            await self._sdk.close()

    async def execute(self, operation: Operation, traceparent: str = "") -> dict[str, Any]:
        """What the engine answers. Cancelling it cancels what the engine does for it.

        Args:
            operation: what to ask.
            traceparent: the trace that logs of it belong to (W3C Trace Context).

        Raises:
            QueryFailed: the engine cannot or will not.
            ConnectionError: the connection broke; the query may have run.
        """
        from gql.transport import exceptions

        try:
            request = _request_type()(operation.text, operation.variables)
            extra: dict[str, Any] = {"headers": {"traceparent": traceparent}} if traceparent else {}
            return await self._graphql.execute(request, extra_args=extra)
        except exceptions.TransportQueryError as exc:
            error: Mapping[str, Any] = exc.errors[0] if exc.errors else {"message": str(exc)}
            raise QueryFailed(str(error.get("message")), error.get("extensions") or {}) from exc
        except exceptions.TransportError as exc:
            raise ConnectionError(str(exc)) from exc


def _new_client(address: SessionAddress) -> Any:
    try:
        from dagger import Timeout
        from dagger.client._config import ConnectConfig
        from dagger.client._session import ConnectParams, SingleConnection
    except ImportError as exc:
        raise sdk_missing() from exc
    return SingleConnection(
        ConnectParams(port=address.port, session_token=address.token),
        ConnectConfig(retry=None, timeout=Timeout(None, connect=SESSION_CONNECT_TIMEOUT)),
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
