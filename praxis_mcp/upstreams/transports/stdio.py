"""A server started by command, used over its standard streams, one message a line (specification, transports).

The SDK's own transport takes in a line of any length, so that a server could fill our memory, and an argument that
UTF-8 cannot carry ends its connection. Here a line is bounded, and messages take no detour through further tasks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TextIO

import anyio
import anyio.abc
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from praxis_mcp.support.mcp_sdk import TransportStreams
from praxis_mcp.upstreams.messages import message_in
from praxis_mcp.upstreams.transports.process import UpstreamProcess, start_process
from praxis_mcp.upstreams.wire import MAX_UPSTREAM_MESSAGE

_GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError)


@asynccontextmanager
async def stdio_streams(
    words: tuple[str, ...], env: Mapping[str, str], cwd: Path | None, errors: TextIO
) -> AsyncIterator[TransportStreams]:
    """Start the server; the two streams of its connection. When this is left, it and all that it started have ended.

    Args:
        words: the command.
        env: variables in addition to PATH, HOME and the few others of the SDK's list.
        cwd: where it is started; None is here.
        errors: its standard error; a real file.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    process = await start_process(words, {**get_default_environment(), **env}, cwd, errors)
    try:
        yield _Incoming(process), _Outgoing(process)
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


class _Incoming(ObjectReceiveStream[SessionMessage | Exception]):
    """Messages of the server."""

    def __init__(self, process: UpstreamProcess) -> None:
        assert process.process.stdout is not None
        self._process = process
        self._stdout = process.process.stdout
        self._pieces: list[bytes] = []
        self._size = 0
        self._rest = b""

    async def receive(self) -> SessionMessage | Exception:
        """The next message, or why a line is not one.

        Raises:
            anyio.EndOfStream: the server has ended.
            anyio.BrokenResourceError: it sends a line that is too long.
        """
        while not (line := await self._line()).strip():
            pass
        return message_in(line)

    async def aclose(self) -> None:
        """Nothing: the process is ended by who started it."""

    async def _line(self) -> bytes:
        while True:
            piece, newline, rest = self._rest.partition(b"\n")
            self._size += len(piece)
            if self._size > MAX_UPSTREAM_MESSAGE:
                raise anyio.BrokenResourceError(
                    f"it sent a message of more than {MAX_UPSTREAM_MESSAGE // 1024**2} MiB, "
                    "which is the most that is taken in"
                )
            self._pieces.append(piece)
            if newline:
                self._rest = rest
                line = b"".join(self._pieces)
                self._pieces, self._size = [], 0
                return line
            self._rest = b""
            try:
                self._rest = await self._stdout.receive()
            except (anyio.EndOfStream, ConnectionError) as exc:
                raise anyio.EndOfStream(await self._process.why_not_run()) from exc


class _Outgoing(ObjectSendStream[SessionMessage]):
    """Messages to the server."""

    def __init__(self, process: UpstreamProcess) -> None:
        assert process.process.stdin is not None
        self._process = process
        self._stdin = process.process.stdin
        self._lock = anyio.Lock()

    async def send(self, item: SessionMessage) -> None:
        """Send a message.

        Raises:
            anyio.BrokenResourceError: the server no longer reads.
        """
        message = item.message.model_dump(by_alias=True, mode="python", exclude_unset=True)
        # In ASCII: half of a surrogate pair, which a JSON text may escape, has no UTF-8.
        line = json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            async with self._lock:
                await self._stdin.send(line)
        except (OSError, anyio.BrokenResourceError) as exc:
            # Which direction notices first that a command could not be run is chance.
            raise anyio.BrokenResourceError(await self._process.why_not_run()) from exc

    async def aclose(self) -> None:
        """Nothing: the process is ended by who started it."""


async def _end(server: UpstreamProcess) -> None:
    """Close its input, wait, then end the whole tree. Bounded."""
    process = server.process
    assert process.stdin is not None
    assert process.stdout is not None
    async with anyio.create_task_group() as tasks:
        # One that is still writing does not read that its input is closed.
        tasks.start_soon(_drain, process.stdout)
        await _close(process.stdin)
        await server.end()
        tasks.cancel_scope.cancel()
    await _close(process.stdout)
    # Where a process that it started holds its pipes, asyncio keeps them open, and has no public way to let go of them.
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:
        with suppress(PermissionError):  # from killing once more a process of another user
            transport.close()


async def _drain(stream: anyio.abc.ByteReceiveStream) -> None:
    with suppress(*_GONE):
        while True:
            await stream.receive()


async def _close(stream: anyio.abc.AsyncResource) -> None:
    with suppress(*_GONE):
        await stream.aclose()
