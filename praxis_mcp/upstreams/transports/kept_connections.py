"""HTTP/1.1 connections to one host that are kept and used again, as a transport for the HTTP client.

A relayed call waits for each step here. Unlike the client's own transport, which passes a request through a queue and
sends its head and its body one after the other, this one sends both at once; a call is half a millisecond shorter.
"""

from __future__ import annotations

import select
import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc
import httpx2

from praxis_mcp.support.http1 import ConnectionLost, HttpConnection, InvalidRequest, MalformedAnswer

KEPT_IDLE = 4.0
"""Seconds for which a connection without a request is used again. Common servers (uvicorn, Node) close it after 5: what
is sent at that moment is lost, and nobody knows whether the tool ran. So it is left a good while before."""
MOST_IDLE = 32
"""Connections without a request that are kept."""
_RECEIVE_SIZE = 256 * 1024  # as much as the event loop receives at once


def needs_proxy(url: str) -> bool:
    """Whether the environment (HTTP_PROXY and so on) names a proxy for that address."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    return bool(proxies.get(parts.scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(
        parts.hostname or ""
    )


class KeptConnections(httpx2.AsyncBaseTransport):
    """Connections by scheme, host and port."""

    def __init__(self, clock: Callable[[], float] = anyio.current_time) -> None:
        self.clock = clock
        self._idle: list[_KeptConnection] = []
        self._tls: ssl.SSLContext | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See `httpx2.AsyncBaseTransport`; raises what it has it raise."""
        timeouts = request.extensions.get("timeout", {})
        origin = (request.url.scheme, request.url.host, request.url.port)
        connection = await self._take(origin) or await self._open(origin, timeouts.get("connect"))
        try:
            return await connection.exchange(request, timeouts.get("write"))
        except BaseException:
            await connection.http.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connections without a request."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.http.aclose()

    def give_back(self, connection: _KeptConnection) -> bool:
        """Keep a connection for the next request; False where there are enough."""
        if len(self._idle) >= MOST_IDLE:
            return False
        connection.idle_since = self.clock()
        self._idle.append(connection)
        return True

    async def _take(self, origin: tuple[Any, ...]) -> _KeptConnection | None:
        idle, self._idle = self._idle, []
        stale = [connection for connection in idle if not connection.is_fresh]
        self._idle = [connection for connection in idle if connection not in stale]
        # The one used last is the one least likely to be closed by now.
        taken = next((connection for connection in reversed(self._idle) if connection.origin == origin), None)
        if taken is not None:
            self._idle.remove(taken)
        for connection in stale:
            await connection.http.aclose()
        return taken

    async def _open(self, origin: tuple[Any, ...], timeout: float | None) -> _KeptConnection:
        scheme, host, port = origin
        if scheme not in ("http", "https"):
            raise httpx2.UnsupportedProtocol(f"{scheme} is not an HTTP scheme")
        secure = scheme == "https"
        if secure and self._tls is None:
            self._tls = httpx2.create_ssl_context()
        try:
            with anyio.fail_after(timeout):
                if secure:
                    stream: anyio.abc.ByteStream = await anyio.connect_tcp(
                        host, port or 443, ssl_context=self._tls, tls_hostname=host, tls_standard_compatible=False
                    )
                else:
                    stream = await anyio.connect_tcp(host, port or 80)
        except TimeoutError as exc:
            raise httpx2.ConnectTimeout(f"no connection within {timeout:g} s") from exc
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as exc:
            cause = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
            raise httpx2.ConnectError(str(cause)) from exc
        return _KeptConnection(self, origin, stream)


class _KeptConnection:
    """One connection."""

    def __init__(self, kept: KeptConnections, origin: tuple[Any, ...], stream: anyio.abc.ByteStream) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self.http = HttpConnection(stream, receive_size=_RECEIVE_SIZE)
        self._kept = kept
        self._socket = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 - not Django's

    @property
    def is_fresh(self) -> bool:
        """Whether the next request may go over it."""
        return self._kept.clock() - self.idle_since < KEPT_IDLE and not _is_readable(self._socket)

    async def exchange(self, request: httpx2.Request, write_timeout: float | None) -> httpx2.Response:
        """Send a request, and receive the head of its answer."""
        body = await request.aread()
        try:
            with anyio.fail_after(write_timeout):
                await self.http.send(request.method, request.url.raw_path, request.headers.raw, body)
        except TimeoutError as exc:
            raise httpx2.WriteTimeout(f"the request was not taken within {write_timeout:g} s") from exc
        except InvalidRequest as exc:
            raise httpx2.LocalProtocolError(str(exc)) from exc
        except ConnectionLost as exc:
            raise httpx2.WriteError(str(exc)) from exc
        try:
            head = await self.http.head()
        except ConnectionLost as exc:
            raise _unread(exc) from exc
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": head.reason},
        )

    async def finish(self) -> None:
        """The answer is finished: keep the connection where it has been read to its end, else close it."""
        if not (self.http.restart() and self._kept.give_back(self)):
            await self.http.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, connection: _KeptConnection) -> None:
        self._connection: _KeptConnection | None = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert self._connection is not None
        http = self._connection.http
        try:
            while piece := await http.piece():
                yield piece
        except ConnectionLost as exc:
            raise _unread(exc) from exc

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.finish()


def _unread(exc: ConnectionLost) -> httpx2.TransportError:
    return (httpx2.RemoteProtocolError if isinstance(exc, MalformedAnswer) else httpx2.ReadError)(str(exc))


def _is_readable(socket: Any) -> bool:
    """Whether a connection without a request has something to say: that it is closed."""
    if socket.fileno() < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))
