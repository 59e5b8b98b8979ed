"""A relay in front of the Docker socket: tests see what is asked, and cut the connection."""

import json
import re
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.abc import ByteStream
from anyio.streams.tls import TLSListener

from praxis_mcp.support.unix_stream import UnixStream

DOCKER_SOCKET = "/var/run/docker.sock"


class Relay:
    """A running relay.

    Attributes:
        address: for DOCKER_HOST.
        requests: method and path of each request that came at the start of a piece.
        refused: status, by a regular expression; requests whose method and path it fits are answered so, and the daemon
            does not hear of them.
        held: requests whose method and path one of these regular expressions fits are never answered.
    """

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[str] = []
        self.refused: dict[str, int] = {}
        self.held: set[str] = set()
        self._open: set[ByteStream] = set()

    async def drop(self) -> None:
        """Cut every connection that is open now; new ones are taken."""
        for stream in list(self._open):
            await stream.aclose()

    async def serve(self, client: ByteStream) -> None:
        daemon = await UnixStream.connect(DOCKER_SOCKET)
        self._open |= {client, daemon}
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pump, client, daemon, True)
                tasks.start_soon(self._pump, daemon, client, False)
        finally:
            self._open -= {client, daemon}
            with anyio.CancelScope(shield=True):
                await daemon.aclose()
                await client.aclose()

    async def _pump(self, source: ByteStream, sink: ByteStream, requests: bool) -> None:
        try:
            while True:
                data = await source.receive()
                if requests and data.partition(b" ")[0] in (b"GET", b"POST", b"DELETE"):
                    self.requests.append(data.partition(b" HTTP/")[0].decode())
                    if (status := self._refusal(self.requests[-1])) is not None:
                        await source.send(answer(status))
                        continue
                    if any(re.search(pattern, self.requests[-1]) for pattern in self.held):
                        continue
                await sink.send(data)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass  # at its end, or cut
        try:
            await sink.send_eof()
        except (NotImplementedError, TypeError):  # TLS cannot close one half, and has no version once it is closed
            await sink.aclose()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass

    def _refusal(self, request: str) -> int | None:
        return next((status for pattern, status in self.refused.items() if re.search(pattern, request)), None)


def answer(status: int) -> bytes:
    """An error as the daemon gives one (Docker Engine API, ErrorResponse)."""
    body = json.dumps({"message": f"refused by the test with {status}"}).encode()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def relay(*, tcp: str | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Relay]:
    """A relay on a Unix socket, or on a port of the address `tcp`, with TLS where a context is given."""
    running = Relay()
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as unix:
        async with anyio.create_task_group() as tasks:
            if tcp is None:
                path = Path(directory) / "docker.sock"
                unix.bind(str(path))
                running.address = f"unix://{path}"
                tasks.start_soon(_accept, unix, running)
            else:
                listener: Any = await anyio.create_tcp_listener(local_host=tcp)
                running.address = f"tcp://{tcp}:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
                if tls is not None:
                    listener = TLSListener(listener, tls, standard_compatible=False)
                tasks.start_soon(_serve, listener, running)
            yield running
            tasks.cancel_scope.cancel()


async def _serve(listener: Any, running: Relay) -> None:
    async with listener:
        await listener.serve(running.serve)


async def _accept(unix: socket.socket, running: Relay) -> None:
    # anyio's own stream does not survive that it is closed, or cancelled, while data arrives: see unix_stream.py.
    unix.listen(100)
    unix.setblocking(False)
    async with anyio.create_task_group() as tasks:
        while True:
            await anyio.wait_readable(unix)
            connection, _ = unix.accept()
            connection.setblocking(False)
            tasks.start_soon(running.serve, UnixStream(connection))
