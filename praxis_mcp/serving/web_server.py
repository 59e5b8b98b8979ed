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

from praxis_mcp.http_settings import HttpSettings


class _Config(uvicorn.Config):
    read_timeout = 30.0


class _ImpatientProtocol(H11Protocol):
    """Closes a connection on which no whole request head comes in time. uvicorn itself waits for ever, so that a few
    hundred silent clients would take up every connection that it allows."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_a_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_a_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

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
        config = _Config(
            app,  # pyright: ignore[reportArgumentType] - Starlette's and uvicorn's types of the same protocol
            http=_ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who is calling is told by credentials, never by an address that a header claims
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=settings.keep_alive,
            timeout_graceful_shutdown=close_timeout,  # pyright: ignore[reportArgumentType] - passed on to wait_for
        )
        config.read_timeout = settings.read_timeout
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
