"""What is needed of the Docker SDK besides its public names: all of it, and nowhere else; and its blocking sockets as
streams, for daemons behind ssh, TLS or a Windows pipe.

Each name may go with any release of the SDK, so pyproject.toml bounds its version to what was run, and
``tests/test_sdks.py`` fails when one goes.

- `set_api_version`: the SDK asks ``/version`` for the version of the API, which a busy Podman answers in seconds;
  ``/_ping`` says it at once, but only a client that exists already can ask that.
- `unix_socket_of`: where the SDK has found the daemon's socket, for connections of our own to it.
- `half_closable`: the SDK hands out an object that reads and writes, and only the socket in it can end one direction.
- `response_of`: that object is a view of an HTTP response, and closing the view leaves the connection open.

Each read, write and wait of a stream holds a thread while it blocks; the threads are not those of anyio's shared pool,
so that long calls cannot starve short ones. Closing the socket frees them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.abc import ByteStream

if TYPE_CHECKING:
    import docker


def set_api_version(api: docker.APIClient, version: str) -> None:
    """Have `api` speak that version, as its constructor would (`docker.APIClient.api_version` reads it)."""
    vars(api)["_version"] = version


def unix_socket_of(api: docker.APIClient) -> str | None:
    """Path of the daemon's Unix socket; None where it is reached in another way."""
    if not api.base_url.startswith("http+docker:"):
        return None
    return getattr(api.get_adapter(api.base_url), "socket_path", None)


def half_closable(attached: Any) -> Any:
    """What can end one direction of a connection that `docker.APIClient.attach_socket` gave: a socket, an ssh channel
    or a pipe."""
    return getattr(attached, "_sock", attached)


def response_of(attached: Any) -> Any | None:
    """The response whose connection that is, where the SDK keeps it with what it gave."""
    return getattr(attached, "_response", None)


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
        for each in (self._owner, response_of(self._owner)):
            if each is not None:
                with suppress(OSError):
                    each.close()

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=self._limiter)


class ThreadedPendingExit:
    """A `connections.PendingExit` that waits in a thread."""

    def __init__(self, wait: Callable[[], int]) -> None:
        self._wait = wait
        self._limiter = anyio.CapacityLimiter(2)

    async def status(self) -> int:
        """See `PendingExit.status`."""
        return await anyio.to_thread.run_sync(self._wait, abandon_on_cancel=True, limiter=self._limiter)

    async def aclose(self) -> None:
        """Nothing to close: the thread ends with the container."""
