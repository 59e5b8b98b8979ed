"""uvicorn, adapted to this server: slow clients are disconnected, the connections that it may have are shared fairly,
signals are left to us, its certificate can change, and what it logs goes to our log."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Protocol

import anyio
import anyio.to_thread
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from praxis_mcp.errors import SettingsError
from praxis_mcp.serving.access import SCOPE_KEY
from praxis_mcp.settings.http import HttpSettings
from praxis_mcp.support.files import STAMP_CHECK_INTERVAL, Stamp, stamp_of
from praxis_mcp.support.logs import logger, places


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
            self._deadline = self.loop.call_later(self.config.read_timeout, self._disconnect)

    def _disconnect(self) -> None:
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
            logger.warning(
                "at most {} connections are accepted at once, not {} (http.max_connections): this process may have no "
                "more files open; raise that by ulimit -n",
                most,
                settings.max_connections,
            )
        config = _Config(
            app,  # pyright: ignore[reportArgumentType] - Starlette's and uvicorn's types of the same protocol
            http=_ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # credentials say who is calling, never an address that a header claims
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


_NAMES = ("uvicorn.error", "mcp", "sse_starlette")
_SECRETS = re.compile(r"[0-9a-fA-F-]{32,36}")
"""Ids of sessions, which let anyone who knows one take part in it."""


class _ToOurLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = _SECRETS.sub("…", record.getMessage().strip())[:500]
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {places(record.exc_info[1])}"
        logger.log("ERROR" if record.levelno >= logging.ERROR else "WARNING", "{}: {}", record.name, text)


@contextmanager
def library_logs() -> Iterator[None]:
    """Meanwhile warnings and errors of the web server and the SDK go to our log, and nothing else of theirs anywhere:
    below that level they log what clients send."""
    handler = _ToOurLog(logging.WARNING)
    found = [(log := logging.getLogger(name), log.level, log.propagate) for name in _NAMES]
    for log, _, _ in found:
        log.addHandler(handler)
        log.setLevel(logging.WARNING)
        log.propagate = False
    try:
        yield
    finally:
        for log, level, propagate in found:
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagate


SPARE = 256
"""Files that a process needs besides its clients' connections; half of its files where it may have few."""


class Connection(Protocol):
    """A client's connection, as far as it matters here."""

    def give_way(self) -> None:
        """Close it now."""
        ...


class Connections:
    """Knows of each connection whether a request is under way on it, and whether one ever was from a caller who may
    call.

    When one more comes than there may be, the one gives way that has been waiting longest without such a request; where
    there is none, the one of a known caller that has rested longest. So a client that opens connections and sends
    nothing, or has no token, closes its own, and keeps nobody out. A connection with a request under way never gives
    way.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._serving: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}
        self._known: dict[Connection, None] = {}

    def arrived(self, connection: Connection) -> None:
        """A new one; another may give way."""
        if len(self._serving) + len(self._strangers) + len(self._known) >= self._most:
            victim = next(iter(self._strangers), None) or next(iter(self._known), None)
            if victim is not None:
                self.left(victim)
                victim.give_way()
        self._strangers[connection] = None

    def serves(self, connection: Connection) -> None:
        """A request is under way on it."""
        self.left(connection)
        self._serving.add(connection)

    def rests(self, connection: Connection, *, known: bool) -> None:
        """No request is under way on it any more.

        Args:
            known: whether there was one from a caller who may call.
        """
        self.left(connection)
        (self._known if known else self._strangers)[connection] = None

    def left(self, connection: Connection) -> None:
        """It is gone."""
        self._serving.discard(connection)
        self._strangers.pop(connection, None)
        self._known.pop(connection, None)


def affordable(most: int) -> int:
    """As many connections as are wanted, or as the process may have open files for; at least one."""
    if sys.platform == "win32":
        return most
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if limit == resource.RLIM_INFINITY else max(1, min(most, limit - min(SPARE, limit // 2)))


class Certificates:
    """A certificate chain and its private key, as their files were when they last fitted each other.

    Attributes:
        context: what connections are taken with; each handshake uses what `watch` has read last.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read them.

        Raises:
            SettingsError: certificate and key cannot be read or do not fit each other.
        """
        self._certificate, self._key = certificate, key
        self._stamps = self._look()
        self.context = self._current = _load(certificate, key)
        # Loading into a context that is in use could leave it with one half of a pair, and an RSA certificate that an
        # elliptic one replaces would stay in it. OpenSSL asks at each handshake, whether or not a client names a host.
        self.context.sni_callback = self._choose

    @classmethod
    def of(cls, settings: HttpSettings) -> Certificates | None:
        """Those of the settings; None where they name none.

        Raises:
            SettingsError: see `Certificates`.
        """
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        return cls(settings.tls_certificate, settings.tls_key)

    async def watch(self) -> None:
        """Read the files again whenever they have changed, until cancelled. What cannot be used is logged, and the
        certificate before it stays."""
        while True:
            await anyio.sleep(STAMP_CHECK_INTERVAL)
            stamps = await anyio.to_thread.run_sync(self._look)
            if stamps == self._stamps:
                continue
            self._stamps = stamps
            try:
                self._current = await anyio.to_thread.run_sync(_load, self._certificate, self._key)
            except SettingsError as exc:
                logger.warning("the certificate before stays in use: {}", exc)
            else:
                logger.info("{} has changed, and is in use now", self._certificate)

    def _look(self) -> tuple[Stamp, Stamp]:
        return stamp_of(self._certificate), stamp_of(self._key)

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current


def _load(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError) as exc:
        what = exc.strerror or exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
        raise SettingsError(
            f"{certificate} and {key} cannot be used for TLS: {what}.",
            remedy="http.tls_certificate is a certificate chain in PEM, http.tls_key its private key.",
        ) from exc
    return context


def _no_password() -> str:
    # OpenSSL would ask for one on the terminal, and wait.
    raise SettingsError("http.tls_key is encrypted.", remedy="Give a key without a password.")
