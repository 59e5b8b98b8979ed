"""uvicorn, bent to this server's needs: clients that are slow to speak are hung up on, and signals are not its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from praxis_mcp.serving.access import SCOPE_KEY
from praxis_mcp.serving.http.connections import Connections, affordable
from praxis_mcp.settings.http import HttpSettings
from praxis_mcp.support.logs import logger


class _Config(uvicorn.Config):
    read_timeout = 30.0
    pool: Connections


class _ImpatientProtocol(H11Protocol):
    """Closes a connection on which no whole request head comes in time. uvicorn itself waits for ever, so that a few
    hundred silent clients would take up every connection that it allows."""

    _deadline: asyncio.TimerHandle | None = None
    _known = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._pool.arrived(self)
        self._expect_a_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete and not self.transport.is_closing():
            self._pool.serves(self)
        self._expect_a_request()

    def on_response_complete(self) -> None:
        caller = self.cycle.scope.get(SCOPE_KEY) if self.cycle is not None else None
        self._known = self._known or bool(caller is not None and caller.scopes)
        super().on_response_complete()  # which may begin the next request
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._pool.rests(self, known=self._known)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._pool.left(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def give_way(self) -> None:
        """Close the connection, whatever is left to be written on it."""
        self.transport.abort()

    @property
    def _pool(self) -> Connections:
        assert isinstance(self.config, _Config)
        return self.config.pool

    def _expect_a_request(self) -> None:
        is_serving = self.cycle is not None and not self.cycle.response_complete
        if is_serving and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif not is_serving and self._deadline is None and not self.transport.is_closing():
            assert isinstance(self.config, _Config)
            self._deadline = self.loop.call_later(self.config.read_timeout, self._hang_up)

    def _hang_up(self) -> None:
        self._deadline = None
        self.transport.close()


class WebServer(uvicorn.Server):
    """Serves an ASGI application on one listening socket.

    Args:
        app: the application.
        settings: see `HttpSettings`.
        tls: context of encrypted connections; None is plain HTTP.
        close_timeout: seconds after which connections that still are open at shutdown are left behind.
        on_listening: called once connections are taken.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: HttpSettings,
        tls: ssl.SSLContext | None,
        *,
        close_timeout: float,
        on_listening: Callable[[], None],
    ) -> None:
        most = affordable(settings.max_connections)
        if most < settings.max_connections:
            logger.warning("{} connections are taken: the process may have no more files open (ulimit -n)", most)
        config = _Config(
            app,  # pyright: ignore[reportArgumentType] - Starlette's and uvicorn's types of the same protocol
            http=_ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who is calling is told by credentials, never by an address that a header claims
            limit_concurrency=most + 1,  # it counts the connection that asks
            timeout_keep_alive=settings.keep_alive,
            timeout_graceful_shutdown=close_timeout,  # pyright: ignore[reportArgumentType] - passed on to wait_for
        )
        config.read_timeout = settings.read_timeout
        config.pool = Connections(most)
        config.load()
        config.ssl = tls
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets)
        self._on_listening()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to who runs this server: uvicorn would raise them again at its end, and the exit code would be
        the signal's."""
        yield
