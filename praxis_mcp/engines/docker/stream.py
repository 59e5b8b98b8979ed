"""Attach and wait, over a connection of their own: no thread is held for the length of a call, and cancelling is
immediate. Knows HTTP and the attach framing, not the SDK.

Framing (Docker Engine API, ContainerAttach, "Stream format"): each frame has a header of eight bytes, the stream
(0 stdin, 1 stdout, 2 stderr), three zeros and a big-endian length, and then that many bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import anyio
import h11

from praxis_mcp.engines.output import StreamName
from praxis_mcp.errors import ExecutionError
from praxis_mcp.support.unix_stream import UnixStream

CHUNK = 64 * 1024
CONNECT_TIMEOUT = 10.0
"""Seconds for a connection to a daemon that has answered before."""
MAX_ANSWER = 1024 * 1024
"""Bytes of an answer that is a JSON value, or an error."""

_HEADER = struct.Struct(">BxxxL")
_STREAMS: dict[int, StreamName] = {1: "stdout", 2: "stderr"}


class ConnectionLost(Exception):
    """The daemon closed a connection that should have stayed open."""


class Refusal(Exception):
    """The daemon answered with an HTTP error.

    Attributes:
        status: HTTP status.
        explanation: the daemon's own words.
    """

    def __init__(self, status: int, explanation: str) -> None:
        super().__init__(f"{status}: {explanation}")
        self.status = status
        self.explanation = explanation


class Duplex(Protocol):
    """A connection after its upgrade: bytes both ways."""

    async def receive(self, max_bytes: int = ...) -> bytes:
        """The next bytes; raises `anyio.EndOfStream` at the end."""
        ...

    async def send(self, item: bytes) -> None:
        """Send all of it."""
        ...

    async def send_eof(self) -> None:
        """End this direction; the other stays."""
        ...

    async def aclose(self) -> None:
        """Close both directions."""
        ...


class AttachedStream:
    """The three streams of one container."""

    def __init__(self, connection: Duplex, received: bytes = b"") -> None:
        self._connection = connection
        self._received = received

    def is_silent(self) -> bool:
        """Whether it is known to be open, with nothing left to be heard; looks, and does not wait."""
        return not self._received and isinstance(self._connection, UnixStream) and self._connection.is_silent()

    async def send(self, data: bytes) -> None:
        """Send a piece of standard input."""
        await self._connection.send(data)

    async def feed(self, data: bytes) -> None:
        """Send the whole standard input, and end it. A container that ends before it has read all is not an error."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            view = memoryview(data)
            for start in range(0, len(data), CHUNK):
                await self._connection.send(bytes(view[start : start + CHUNK]))
            await self._connection.send_eof()

    async def pieces(self) -> AsyncGenerator[tuple[StreamName, bytes], None]:
        """What the container writes, as it arrives, until all of it has ended.

        Raises:
            ConnectionLost: the stream ended within a frame, or the connection broke.
            ExecutionError: what arrives is not framed as the API says.
        """
        buffer = bytearray(self._received)
        stream: StreamName | None = None
        due = 0
        while True:
            while due or len(buffer) >= _HEADER.size:
                if not due:
                    number, due = _HEADER.unpack_from(buffer)
                    if number not in (0, 1, 2):
                        raise ExecutionError("The Docker daemon sent output that is not framed as its API says.")
                    stream = _STREAMS.get(number)
                    del buffer[: _HEADER.size]
                    continue
                if not buffer:
                    break
                piece = bytes(buffer[:due])
                del buffer[: len(piece)]
                due -= len(piece)
                if stream is not None:
                    yield stream, piece
            try:
                buffer += await self._connection.receive(CHUNK)
            except anyio.EndOfStream:
                if due or buffer:
                    raise ConnectionLost("the output ended within a frame") from None
                return
            except (anyio.BrokenResourceError, OSError) as exc:
                raise ConnectionLost("the connection broke") from exc

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.aclose()


class PendingExit(Protocol):
    """A container's exit code, to come."""

    async def status(self) -> int:
        """Wait for the exit code; may be cancelled and asked again.

        Raises:
            ConnectionLost: the daemon will not tell any more.
        """
        ...

    async def aclose(self) -> None:
        """Ask no more."""
        ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where the daemon listens, for sockets that anyio can open itself: a path, or host and port without TLS."""

    path: str = ""
    host: str = ""
    port: int = 0

    async def connect(self) -> Duplex:
        """A new connection."""
        with anyio.fail_after(CONNECT_TIMEOUT):
            if self.path:
                return await UnixStream.connect(self.path)
            return await anyio.connect_tcp(self.host, self.port)


async def open_attached(address: Address, target: str) -> AttachedStream:
    """Attach: `target` is the path and query of ``/containers/{id}/attach``.

    Raises:
        Refusal: the daemon will not.
        ConnectionLost, OSError: it cannot be reached.
    """
    connection = await address.connect()
    try:
        exchange = _Exchange(connection)
        await exchange.request("POST", target, [("Connection", "Upgrade"), ("Upgrade", "tcp")])
        head = await exchange.head()
        if head.status_code not in (101, 200):
            raise Refusal(head.status_code, await exchange.explanation())
        return AttachedStream(connection, exchange.trailing())
    except BaseException:
        await _close_at_once(connection)
        raise


async def open_wait(address: Address, target: str) -> NativePendingExit:
    """Wait: `target` is the path and query of ``/containers/{id}/wait``. Returns once the daemon has taken the request
    down, so that no exit from now on is missed.

    Raises:
        Refusal: the daemon will not.
        ConnectionLost, OSError: it cannot be reached.
    """
    connection = await address.connect()
    try:
        exchange = _Exchange(connection)
        await exchange.request("POST", target, [("Connection", "close")])
        head = await exchange.head()
        if head.status_code != 200:
            raise Refusal(head.status_code, await exchange.explanation())
        return NativePendingExit(exchange)
    except BaseException:
        await _close_at_once(connection)
        raise


async def _close_at_once(connection: Duplex) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await connection.aclose()


class NativePendingExit:
    """`PendingExit` over a connection of its own."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def status(self) -> int:
        """See `PendingExit.status`."""
        try:
            answer = json.loads(await self._exchange.body())
            return int(answer["StatusCode"])
        except (ValueError, KeyError, TypeError) as exc:
            raise ConnectionLost("the daemon's answer to a wait cannot be read") from exc

    async def aclose(self) -> None:
        """Close the connection."""
        await _close_at_once(self._exchange.connection)


class _Exchange:
    """One HTTP request and its answer. Being cancelled while it receives loses nothing."""

    def __init__(self, connection: Duplex) -> None:
        self.connection = connection
        self._http = h11.Connection(h11.CLIENT)
        self._body = bytearray()

    async def request(self, method: str, target: str, headers: list[tuple[str, str]]) -> None:
        request = h11.Request(
            method=method, target=target, headers=[("Host", "docker"), ("Content-Length", "0"), *headers]
        )
        data = (self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        await self.connection.send(data)

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as exc:
                raise ConnectionLost("the daemon's answer is broken") from exc
            if event is not h11.NEED_DATA:
                return event  # pyright: ignore[reportReturnType] - NEED_DATA is ruled out
            try:
                self._http.receive_data(await self.connection.receive(CHUNK))
            except anyio.EndOfStream:
                self._http.receive_data(b"")
            except (anyio.BrokenResourceError, OSError) as exc:
                raise ConnectionLost("the connection broke") from exc

    async def head(self) -> h11.Response | h11.InformationalResponse:
        """The answer's head: 101 or a final one."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return event
                continue
            raise ConnectionLost("the daemon closed the connection without an answer")

    def trailing(self) -> bytes:
        """Bytes that came after the head."""
        return self._http.trailing_data[0]

    async def body(self) -> bytes:
        while len(self._body) <= MAX_ANSWER:
            event = await self._next()
            if isinstance(event, h11.Data):
                self._body += event.data
            else:
                break
        return bytes(self._body)

    async def explanation(self) -> str:
        """The daemon's words in an error."""
        return answer_message(await self.body())


def answer_message(body: bytes) -> str:
    """The daemon's words in the body of an error (Docker Engine API, ErrorResponse)."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()
