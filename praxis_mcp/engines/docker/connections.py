"""Connections of our own to the daemon: attach and wait, which hold no thread for the length of a call and can be
cancelled at once, and lookups of images. Knows HTTP and the attach framing, not the SDK.

Framing (Docker Engine API, ContainerAttach, "Stream format"): each frame has a header of eight bytes, the stream
(0 stdin, 1 stdout, 2 stderr), three zeros and a big-endian length, and then that many bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import anyio
from anyio.abc import ByteStream

from praxis_mcp.engines.output import StreamName
from praxis_mcp.errors import ExecutionError
from praxis_mcp.support.http1 import ConnectionLost, HttpConnection
from praxis_mcp.support.unix_stream import UnixStream

CHUNK = 64 * 1024
CONNECT_TIMEOUT = 10.0
"""Seconds for a connection to a daemon that has answered before."""
MAX_ANSWER = 1024 * 1024
"""Bytes of an answer that is a JSON value, or an error."""
MAX_IMAGE_ANSWER = 4 * 1024 * 1024
"""Bytes of what the daemon says of an image."""
LOOKUP_TIMEOUT = 5.0
"""Seconds for looking an image up; the caller can do without."""

_HEADER = struct.Struct(">BxxxL")
_STREAMS: dict[int, StreamName] = {1: "stdout", 2: "stderr"}


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


class AttachedStream:
    """The three streams of one container."""

    def __init__(self, connection: ByteStream, received: bytes = b"") -> None:
        self._connection = connection
        self._received = received

    def is_silent(self) -> bool:
        """Whether it is known to be open, with nothing left to read; looks, and does not wait."""
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

    async def connect(self) -> ByteStream:
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
    http = await _posted(address, target, ("Connection", "Upgrade"), ("Upgrade", "tcp"))
    return AttachedStream(http.stream, http.trailing())


async def open_wait(address: Address, target: str) -> NativePendingExit:
    """Wait: `target` is the path and query of ``/containers/{id}/wait``. Returns once the daemon has taken the request
    down, so that no exit from now on is missed.

    Raises:
        Refusal: the daemon will not.
        ConnectionLost, OSError: it cannot be reached.
    """
    return NativePendingExit(await _posted(address, target, ("Connection", "close")))


async def _posted(address: Address, target: str, *headers: tuple[str, str]) -> HttpConnection:
    """A connection of its own on which that was asked, and granted."""
    http = HttpConnection(await address.connect())
    try:
        await http.send("POST", target, [("Host", "docker"), ("Content-Length", "0"), *headers])
        status = (await http.head()).status_code
        if status not in (101, 200):
            raise Refusal(status, answer_message(await http.body(MAX_ANSWER)))
        return http
    except BaseException:
        await http.aclose()
        raise


class NativePendingExit:
    """`PendingExit` over a connection of its own."""

    def __init__(self, http: HttpConnection) -> None:
        self._http = http

    async def status(self) -> int:
        """See `PendingExit.status`."""
        try:
            answer = json.loads(await self._http.body(MAX_ANSWER))
            return int(answer["StatusCode"])
        except (ValueError, KeyError, TypeError) as exc:
            raise ConnectionLost("the daemon's answer to a wait cannot be read") from exc

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()


class ImageLookup:
    """Looks images up over one connection that is kept: 0.3 ms, where the SDK takes 4 ms in a thread of its own.

    For what a call must know before it begins. Lookups wait for each other, and those of one image that have waited
    share the next answer: each is of a time after it was asked for.
    """

    def __init__(self, address: Address, prefix: str) -> None:
        self._address = address
        self._prefix = prefix
        self._lock = anyio.Lock()
        self._http: HttpConnection | None = None
        self._requested = 0
        self._last: tuple[str, int, Mapping[str, Any] | None] | None = None

    async def image(self, reference: str) -> Mapping[str, Any] | None:
        """What the daemon knows of an image; None where it has none of that name.

        Raises:
            ConnectionLost, OSError: the daemon is gone.
            Refusal: it will not tell.
            TimeoutError: it does not tell within `LOOKUP_TIMEOUT`.
        """
        self._requested += 1
        number = self._requested
        async with self._lock:
            if self._last is not None and self._last[0] == reference and self._last[1] >= number:
                return self._last[2]
            last = self._requested
            status, body = await self._get(f"/images/{quote(reference, safe='/:@')}/json")
            if status not in (200, 404):
                raise Refusal(status, answer_message(body))
            found = None if status == 404 else json.loads(body)
            self._last = (reference, last, found)
            return found

    async def aclose(self) -> None:
        """Close the connection; the next lookup opens another."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def _get(self, path: str) -> tuple[int, bytes]:
        with anyio.fail_after(LOOKUP_TIMEOUT):
            kept = self._http is not None
            try:
                return await self._get_once(path)
            except (ConnectionLost, OSError):
                # The daemon may close what is idle, or have been started again.
                if not kept:
                    raise
                return await self._get_once(path)

    async def _get_once(self, path: str) -> tuple[int, bytes]:
        if self._http is None:
            self._http = HttpConnection(await self._address.connect())
        http, is_kept = self._http, False
        try:
            await http.send("GET", self._prefix + path, [("Host", "docker")])
            status = (await http.head()).status_code
            body = await http.body(MAX_IMAGE_ANSWER)
            is_kept = http.restart()
            return status, body
        finally:
            if not is_kept:
                await self.aclose()


def answer_message(body: bytes) -> str:
    """The daemon's words in the body of an error (Docker Engine API, ErrorResponse)."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()
