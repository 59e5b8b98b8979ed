"""Serving MCP over the process's own standard input and output, one JSON text a line (specification, transports).

The SDK's own stdio transport reads in a thread that nothing can interrupt, so that a server whose client keeps the
pipe open does not end at SIGTERM; and it drops what it cannot parse, so that the sender waits for ever. Here pipes and
sockets are read and written on the event loop, as far as that does not block, and all else in threads that die with the
process (each visit to a thread costs a call a third of a millisecond, and several on a busy machine); and a message
that cannot be read is answered.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import queue
import select
import socket
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, nullcontext
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import ObjectSendStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.mcp.server import PraxisServer
from praxis_mcp.serving.wire import Wire, take_wire, tells_readiness
from praxis_mcp.support.logs import logger
from praxis_mcp.support.mcp_sdk import WriteStream
from praxis_mcp.support.text import escape_line_ends

MAX_STDIO_MESSAGE = 64 * 1024 * 1024
"""Bytes of one message; a longer one is refused, and skipped to its end."""
MESSAGES_DRAIN_TIMEOUT = 2.0
"""Seconds that messages which are being written when the connection ends may take."""
_READ_SIZE = 256 * 1024
_DECODED_AT_ONCE = 256 * 1024
"""Bytes of a message that is decoded on the event loop, at most: milliseconds. A longer one may take seconds."""
_WRITTEN_AT_ONCE = 64 * 1024
"""Bytes of a message that the event loop writes itself, at most: what an empty pipe takes."""
_SERVER_ENDED = (
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
    concurrent.futures.CancelledError,
    RuntimeError,  # the event loop is closed
)

ReadStream = MemoryObjectReceiveStream[SessionMessage | Exception]
T = TypeVar("T")


async def serve_stdio(toolbox: Toolbox, wire: Wire | None = None) -> None:
    """Serve one client on standard input and output, until it closes them; or until cancelled, as by
    `lifetime.until_signalled`. Running calls are cancelled then, and what they started is killed.

    Args:
        toolbox: what to serve.
        wire: standard input and output, where the process has taken them already (see `take_wire`).
    """
    with take_wire() if wire is None else nullcontext(wire) as taken:
        async with PraxisServer.open(toolbox) as server:
            async with stdio_streams(taken) as (incoming, outgoing):
                await server.serve(incoming, outgoing)
            logger.info("the client has closed the connection")


@asynccontextmanager
async def stdio_streams(wire: Wire) -> AsyncIterator[tuple[ReadStream, WriteStream[SessionMessage]]]:
    """The two streams that the SDK's server loop runs on. The read stream ends with standard input, or when standard
    output breaks."""
    incoming, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    answers, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    write_stream = DirectStream(answers)
    reader = _Reader(wire, DirectStream(incoming), answers.clone())
    written = anyio.Event()
    # When the server is cancelled, the last answers may still go out, for a moment.
    writing = anyio.CancelScope(shield=True)

    answered = wire.answered

    async def write() -> None:
        nonlocal answered
        with writing:
            async with outgoing:
                async for message in outgoing:
                    if answered is not None and _answers(message.message, answered):
                        answered = None
                        continue
                    if not await writer.write(_encode(message)):
                        break
        written.set()
        # The client is gone: what it requested need not be finished.
        incoming.close()

    with read_stream, outgoing, closing(_Writer(wire.stdout)) as writer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            tasks.start_soon(reader.run)
            try:
                yield read_stream, write_stream
            finally:
                answers.close()
                reader.close()
                with anyio.move_on_after(MESSAGES_DRAIN_TIMEOUT, shield=True):
                    await written.wait()
                writing.cancel()
                tasks.cancel_scope.cancel()


class DirectStream(ObjectSendStream[T]):
    """As the stream that it is made of, which has every message wait a round of the event loop, also where its receiver
    is ready. Messages arrive in the order in which they were sent, from all senders."""

    def __init__(self, stream: MemoryObjectSendStream[T]) -> None:
        self._stream = stream
        self._on_their_way = 0

    async def send(self, item: T) -> None:
        """Send a message."""
        if not self._on_their_way:  # else it would overtake one that waits its round
            try:
                return self._stream.send_nowait(item)
            except anyio.WouldBlock:
                pass
        self._on_their_way += 1
        try:
            await self._stream.send(item)
        finally:
            self._on_their_way -= 1

    def close(self) -> None:
        """No more will come."""
        self._stream.close()

    async def aclose(self) -> None:
        """See `close`."""
        self.close()


def _answers(message: JSONRPCMessage, identity: RequestId) -> bool:
    """Whether it is the answer to that request, which the client has already (`greet`)."""
    if isinstance(message, JSONRPCError) and message.id == identity:
        logger.error("a first message was answered that should have been refused: {}", message.error.code)
    return isinstance(message, JSONRPCResponse | JSONRPCError) and message.id == identity


class _Reader:
    """Reads lines and hands them over one by one, waiting until each is taken."""

    def __init__(
        self,
        wire: Wire,
        incoming: DirectStream[SessionMessage | Exception],
        answers: MemoryObjectSendStream[SessionMessage],
    ) -> None:
        self._descriptor = wire.stdin
        self._read_before = wire.read
        self._incoming = incoming
        self._answers = answers
        self._lines = _Lines()

    async def run(self) -> None:
        """Until standard input ends, or nobody takes what it holds."""
        try:
            for line in self._lines.take(self._read_before) if self._read_before else ():
                await self._hand_over(line)
            if tells_readiness(self._descriptor):
                await self._read_when_ready()
            else:
                ended = anyio.Event()
                token = anyio.lowlevel.current_token()
                threading.Thread(target=self._read, args=(token, ended), name="mcp-stdin", daemon=True).start()
                await ended.wait()
        except _SERVER_ENDED:
            logger.debug("the server ended before its standard input")

    def close(self) -> None:
        self._incoming.close()
        self._answers.close()

    async def _read_when_ready(self) -> None:
        while True:
            await anyio.wait_readable(self._descriptor)
            try:
                data = _read_some(self._descriptor)
            except BlockingIOError:  # the client has made its end of the same socket non-blocking, and ours with it
                continue
            for line in self._lines.take(data):
                await self._hand_over(line)
            if not data:
                return self.close()

    def _read(self, token: anyio.lowlevel.EventLoopToken, ended: anyio.Event) -> None:
        try:
            data = b"-"
            while data:
                data = _read_some(self._descriptor)
                for line in self._lines.take(data):
                    anyio.from_thread.run(self._hand_over, line, token=token)
            anyio.from_thread.run_sync(self.close, token=token)
            anyio.from_thread.run_sync(ended.set, token=token)
        except _SERVER_ENDED:
            logger.debug("the server ended before its standard input")

    async def _hand_over(self, line: bytes | None) -> None:
        if line is not None and len(line) > _DECODED_AT_ONCE:
            message = await anyio.to_thread.run_sync(_decode, line)
        else:
            message = _decode(line)
        if isinstance(message, JSONRPCError):
            await self._answers.send(SessionMessage(message))
        elif message is not None:
            await self._incoming.send(message)


class _Writer:
    """Writes messages, without blocking the event loop where a client does not read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_pipe = tells_readiness(descriptor)
        self._socket = socket.socket(fileno=os.dup(descriptor)) if _is_socket(descriptor) else None
        self._token = anyio.lowlevel.current_token()
        self._queue: queue.SimpleQueue[tuple[bytes, Callable[[bool], None]]] | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    async def write(self, data: bytes) -> bool:
        """Write, and say whether that worked; it does not when the client has closed its end."""
        try:
            left = data[self._write_at_once(data) :]
        except OSError as exc:
            return _client_is_gone(exc)
        return not left or await self._write_in_thread(left)

    def _write_at_once(self, data: bytes) -> int:
        """Write what the kernel takes now; how many bytes that was."""
        if self._socket is not None:
            try:
                return self._socket.send(data[:_WRITTEN_AT_ONCE], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return 0
        written = 0
        # What PIPE_BUF is the size of, a pipe takes without blocking once it is ready (poll(2), pipe(7)).
        while self._is_pipe and written < min(len(data), _WRITTEN_AT_ONCE) and self._is_ready():
            written += os.write(self._descriptor, data[written : written + select.PIPE_BUF])
        return written

    def _is_ready(self) -> bool:
        return _wait_writable(self._descriptor, 0)

    async def _write_in_thread(self, data: bytes) -> bool:
        done = anyio.Event()
        outcome: list[bool] = []

        def finished(worked: bool) -> None:
            outcome.append(worked)
            done.set()

        if self._queue is None:
            self._queue = queue.SimpleQueue()
            threading.Thread(target=self._run, args=(self._queue,), name="mcp-stdout", daemon=True).start()
        self._queue.put((data, finished))
        await done.wait()
        return outcome[0]

    def _run(self, messages: queue.SimpleQueue[tuple[bytes, Callable[[bool], None]]]) -> None:
        try:
            while True:
                data, finished = messages.get()
                anyio.from_thread.run_sync(finished, _write_all(self._descriptor, data), token=self._token)
        except _SERVER_ENDED:
            logger.debug("the server ended before the last message was written")


def _is_socket(descriptor: int) -> bool:
    return sys.platform != "win32" and stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def _read_some(descriptor: int) -> bytes:
    """The next bytes; none where it ended or broke."""
    try:
        return os.read(descriptor, _READ_SIZE)
    except BlockingIOError:
        raise
    except OSError as exc:
        logger.debug("standard input broke: {}", exc.strerror)
        return b""


def _write_all(descriptor: int, data: bytes) -> bool:
    view = memoryview(data)
    try:
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # as in `_Reader`
                _wait_writable(descriptor)
    except OSError as exc:
        return _client_is_gone(exc)
    return True


def _wait_writable(descriptor: int, timeout: float | None = None) -> bool:
    """Whether it can be written, or is broken, within so many seconds (None: however long that takes)."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return bool(waiting.poll(None if timeout is None else timeout * 1000))


def _client_is_gone(exc: OSError) -> bool:
    logger.debug("the client no longer reads: {}", exc.strerror)
    return False


class _Lines:
    """Cuts what is read into lines."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that the next bytes complete, without their end; None for one that was too long. No bytes are the
        end."""
        if not data and self._size:
            yield self._line()
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._add(data[start:end])
            yield self._line()
            start = end + 1
        self._add(data[start:])

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_STDIO_MESSAGE:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def _line(self) -> bytes | None:
        line = b"".join(self._pieces) if self._size <= MAX_STDIO_MESSAGE else None
        self._pieces.clear()
        self._size = 0
        return line


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
