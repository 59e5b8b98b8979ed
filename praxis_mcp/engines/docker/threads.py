"""Attach and wait through the SDK's blocking sockets, for daemons behind ssh, TLS or a Windows pipe.

Each read, write and wait holds a thread while it blocks; the threads are not those of anyio's shared pool, so that
long calls cannot starve short ones. Closing the socket frees them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import ByteStream

from praxis_mcp.engines.docker.sdk import half_closable


class ThreadedDuplex(ByteStream):
    """A connection over a blocking socket, ssh channel or pipe of the SDK."""

    def __init__(self, connection: Any) -> None:
        self._connection = half_closable(connection)
        self._owner = connection
        self._limiter = anyio.CapacityLimiter(2)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes."""
        data = await self._run(self._connection.recv, max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send all of it."""
        await self._run(self._connection.sendall, item)

    async def send_eof(self) -> None:
        """End this direction."""
        half = getattr(self._connection, "shutdown_write", None)  # paramiko's channel
        if half is not None:
            await self._run(half)
        else:
            await self._run(self._connection.shutdown, socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close both directions, and with them what still blocks."""
        with suppress(OSError, AttributeError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._owner.close()

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=self._limiter)


class ThreadedPendingExit:
    """A `stream.PendingExit` that waits in a thread."""

    def __init__(self, wait: Callable[[], int]) -> None:
        self._wait = wait
        self._limiter = anyio.CapacityLimiter(2)

    async def status(self) -> int:
        """See `PendingExit.status`."""
        return await anyio.to_thread.run_sync(self._wait, abandon_on_cancel=True, limiter=self._limiter)

    async def aclose(self) -> None:
        """Nothing to close: the thread ends with the container."""
