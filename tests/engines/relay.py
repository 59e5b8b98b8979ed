"""A relay in front of the Docker socket: tests see what is asked, and cut the connection."""

import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.tls import TLSListener

DOCKER_SOCKET = "/var/run/docker.sock"


class Relay:
    """A running relay.

    Attributes:
        address: for DOCKER_HOST.
        requests: method and path of each request seen first on a connection, or after a finished one.
    """

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[str] = []
        self._open: set[anyio.abc.ByteStream] = set()

    async def drop(self) -> None:
        """Cut every connection that is open now; new ones are taken."""
        for stream in self._open:
            # Shut down, not closed: anyio does not survive that a stream is closed while a task receives from it.
            stream.extra(anyio.abc.SocketAttribute.raw_socket).shutdown(socket.SHUT_RDWR)

    async def serve(self, client: anyio.abc.ByteStream) -> None:
        async with await anyio.connect_unix(DOCKER_SOCKET) as daemon, client:
            self._open |= {client, daemon}
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._pump, client, daemon, True)
                    tasks.start_soon(self._pump, daemon, client, False)
            finally:
                self._open -= {client, daemon}

    async def _pump(self, source: anyio.abc.ByteStream, sink: Any, requests: bool) -> None:
        try:
            async for data in source:
                if requests and data.partition(b" ")[0] in (b"GET", b"POST", b"DELETE"):
                    self.requests.append(data.partition(b" HTTP/")[0].decode())
                await sink.send(data)
            await sink.send_eof()
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, NotImplementedError):
            pass  # cut, or TLS, which cannot close one half


@asynccontextmanager
async def relay(*, tcp: str | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Relay]:
    """A relay on a Unix socket, or on a port of the address `tcp`, with TLS where a context is given."""
    running = Relay()
    with tempfile.TemporaryDirectory() as directory:
        if tcp is None:
            path = Path(directory) / "docker.sock"
            listener: Any = await anyio.create_unix_listener(path)
            running.address = f"unix://{path}"
        else:
            listener = await anyio.create_tcp_listener(local_host=tcp)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            running.address = f"tcp://{tcp}:{port}"
        if tls is not None:
            listener = TLSListener(listener, tls, standard_compatible=False)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, running.serve)
            yield running
            tasks.cancel_scope.cancel()
