"""Serving MCP over the process's own standard input and output, one JSON text a line (specification, transports).

The SDK's own stdio transport reads in a thread that nothing can interrupt, so that a server whose client keeps the
pipe open does not end at SIGTERM; and it drops what it cannot parse, so that the sender waits for ever. Here reading
and writing are threads that die with the process, and a message that cannot be read is answered.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext

import anyio
import anyio.from_thread
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.lifetime import until_signalled
from praxis_mcp.serving.mcp.server import build_server
from praxis_mcp.serving.wire import Wire, take_wire
from praxis_mcp.support.logs import logger
from praxis_mcp.support.text import escape_line_ends

MAX_STDIO_MESSAGE = 64 * 1024 * 1024
"""Bytes of one message; a longer one is refused, and skipped to its end."""
MESSAGES_DRAIN_TIMEOUT = 2.0
"""Seconds that messages which are being written when the connection ends may take."""
_READ_SIZE = 256 * 1024
_SERVER_ENDED = (
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
    concurrent.futures.CancelledError,
    RuntimeError,  # the event loop is closed
)

ReadStream = MemoryObjectReceiveStream[SessionMessage | Exception]
WriteStream = MemoryObjectSendStream[SessionMessage]


async def serve_stdio(toolbox: Toolbox, wire: Wire | None = None) -> None:
    """Serve one client on standard input and output, until it closes them or a signal ends the process.

    Running calls are cancelled then, and what they started is killed. A second SIGINT, SIGTERM or SIGHUP ends the
    process at once.

    Args:
        toolbox: what to serve.
        wire: standard input and output, where the process has taken them already (see `take_wire`).
    """
    with take_wire() if wire is None else nullcontext(wire) as taken:
        async with until_signalled(), build_server(toolbox) as server:
            async with stdio_streams(taken) as (incoming, outgoing):
                await server.serve(incoming, outgoing)
            logger.info("the client has closed the connection")


@asynccontextmanager
async def stdio_streams(wire: Wire) -> AsyncIterator[tuple[ReadStream, WriteStream]]:
    """The two streams that the SDK's server loop runs on. The read stream ends with standard input, or when standard
    output breaks."""
    incoming, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    reader = _Reader(wire.stdin, incoming, write_stream.clone())
    writer = _Writer(wire.stdout)
    written = anyio.Event()
    # When the server is cancelled, the last answers may still go out, for a moment.
    writing = anyio.CancelScope(shield=True)

    async def write() -> None:
        with writing:
            async with outgoing:
                async for message in outgoing:
                    if not await writer.write(_encode(message)):
                        break
        written.set()
        # The client is gone: what it requested need not be finished.
        incoming.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        reader.start()
        try:
            yield read_stream, write_stream
        finally:
            write_stream.close()
            reader.close()
            with anyio.move_on_after(MESSAGES_DRAIN_TIMEOUT, shield=True):
                await written.wait()
            writing.cancel()


class _Reader:
    """A thread that reads lines and hands them to the event loop one by one, waiting until each is taken."""

    def __init__(
        self, descriptor: int, incoming: MemoryObjectSendStream[SessionMessage | Exception], answers: WriteStream
    ) -> None:
        self._descriptor = descriptor
        self._incoming = incoming
        self._answers = answers
        self._token = anyio.lowlevel.current_token()

    def start(self) -> None:
        threading.Thread(target=self._read, name="mcp-stdin", daemon=True).start()

    def close(self) -> None:
        self._incoming.close()
        self._answers.close()

    def _read(self) -> None:
        try:
            for line in _lines(self._descriptor):
                message = _decode(line)
                if isinstance(message, JSONRPCError):
                    anyio.from_thread.run(self._answers.send, SessionMessage(message), token=self._token)
                elif message is not None:
                    anyio.from_thread.run(self._incoming.send, message, token=self._token)
            anyio.from_thread.run_sync(self.close, token=self._token)
        except _SERVER_ENDED:
            logger.debug("the server ended before its standard input")


class _Writer:
    """A thread that writes, so that a client that does not read blocks nobody but its own messages."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._token = anyio.lowlevel.current_token()
        self._queue: queue.SimpleQueue[tuple[bytes, Callable[[bool], None]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="mcp-stdout", daemon=True).start()

    async def write(self, data: bytes) -> bool:
        """Write, and say whether that worked; it does not when the client has closed its end."""
        done = anyio.Event()
        outcome: list[bool] = []

        def finished(worked: bool) -> None:
            outcome.append(worked)
            done.set()

        self._queue.put((data, finished))
        await done.wait()
        return outcome[0]

    def _run(self) -> None:
        try:
            while True:
                data, finished = self._queue.get()
                anyio.from_thread.run_sync(finished, _write_all(self._descriptor, data), token=self._token)
        except _SERVER_ENDED:
            logger.debug("the server ended before the last message was written")


def _write_all(descriptor: int, data: bytes) -> bool:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as exc:
        logger.debug("the client no longer reads: {}", exc.strerror)
        return False
    return True


def _lines(descriptor: int) -> Iterator[bytes | None]:
    """Lines without their end; None for one that was too long."""
    pieces: list[bytes] = []
    size = 0
    while True:
        try:
            data = os.read(descriptor, _READ_SIZE)
        except OSError as exc:
            logger.debug("standard input broke: {}", exc.strerror)
            return
        if not data:
            if pieces or size:
                yield b"".join(pieces) if size <= MAX_STDIO_MESSAGE else None
            return
        while data:
            piece, newline, data = data.partition(b"\n")
            size += len(piece)
            if size > MAX_STDIO_MESSAGE:
                pieces.clear()
            else:
                pieces.append(piece)
            if newline:
                yield b"".join(pieces) if size <= MAX_STDIO_MESSAGE else None
                pieces.clear()
                size = 0


def _decode(line: bytes | None) -> SessionMessage | JSONRPCError | None:
    """A message, the answer to something else, or nothing for a blank line."""
    if line is None:
        return _refusal(None, INVALID_REQUEST, f"A message has at most {MAX_STDIO_MESSAGE} bytes.")
    if not line.strip():
        return None
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError:
        pass
    try:
        # Python refuses a number of more than 4,300 digits; the client is answered under its id all the same.
        value = json.loads(line, parse_int=lambda digits: int(digits) if len(digits) < 100 else digits)
    except (ValueError, RecursionError):
        return _refusal(None, PARSE_ERROR, "Parse error: a line is one JSON-RPC message in UTF-8.")
    if isinstance(value, list):
        return _refusal(None, INVALID_REQUEST, "Batches are not supported: send one message a line.")
    identity = value.get("id") if isinstance(value, dict) else None
    if isinstance(identity, bool) or not isinstance(identity, int | str) or not _is_text(identity):
        identity = None
    return _refusal(identity, INVALID_REQUEST, "Invalid request: this is not a JSON-RPC 2.0 message in valid Unicode.")


def _is_text(value: int | str) -> bool:
    try:
        str(value).encode()
    except (UnicodeEncodeError, ValueError):
        return False
    return True


def _refusal(identity: RequestId | None, code: int, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=identity, error=ErrorData(code=code, message=message))


def _encode(message: SessionMessage) -> bytes:
    try:
        return escape_line_ends(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode()) + b"\n"
    except ValueError as exc:
        # Text that JSON cannot carry must cost one answer, not the connection.
        logger.error("a message could not be written: {}", type(exc).__name__)
        identity = message.message.id if isinstance(message.message, JSONRPCResponse) else None
        refusal = _refusal(identity, INTERNAL_ERROR, "The answer holds text that JSON cannot carry.")
        return refusal.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
