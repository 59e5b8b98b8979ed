"""A connection to a Unix socket that may be cancelled at any moment.

anyio's own stream leaves a callback behind when a receive is cancelled just as data arrives: the event loop then
reports `InvalidStateError` (seen with anyio 4.16 when calls with much output were cancelled). `anyio.wait_readable` is
safe in that respect, so this is a non-blocking socket on it.
"""

from __future__ import annotations

import socket

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream


class UnixStream(ByteStream):
    """Bytes both ways; each direction is for one task at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    @classmethod
    async def connect(cls, path: str) -> UnixStream:
        """Connect to the socket at `path`.

        Raises:
            OSError: it is missing, refuses this user, or nobody listens.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            while True:
                try:
                    connection.connect(path)
                except BlockingIOError:  # the listener's backlog is full (unix(7)): it cannot be waited for
                    await anyio.sleep(0.01)
                else:
                    break
            await anyio.lowlevel.checkpoint()
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes.

        Raises:
            anyio.EndOfStream: there are no more.
            OSError: the connection broke.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
                has_waited = True
                continue
            if not has_waited:  # who sends without pause does not keep others from their turn
                await anyio.lowlevel.cancel_shielded_checkpoint()
            if not data:
                raise anyio.EndOfStream
            return data

    def is_silent(self) -> bool:
        """Whether it is open and nothing waits to be received; looks, and does not wait."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def send(self, item: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: the connection broke.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(item)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    async def send_eof(self) -> None:
        """End this direction; the other stays."""
        self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close both directions; a task that waits in one of them gets `anyio.ClosedResourceError`."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
