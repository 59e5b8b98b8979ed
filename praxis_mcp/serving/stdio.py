"""Serving MCP over the process's own standard input and output, one JSON text a line (specification, transports).

The SDK's own stdio transport reads in a thread that nothing can interrupt, so that a server whose client keeps the
pipe open does not end at SIGTERM; and it drops what it cannot parse, so that the sender waits for ever. Here pipes and
sockets are read and written on the event loop, as far as that does not block, and all else in threads that die with the
process (each visit to a thread costs a call a third of a millisecond, and several on a busy machine); and a message
that cannot be read is answered.
"""

from __future__ import annotations

import asyncio
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

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import ObjectReceiveStream, ObjectSendStream
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

ReadStream = ObjectReceiveStream[SessionMessage | Exception]


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
    queue, waiting = anyio.create_memory_object_stream[SessionMessage | bytes](0)
    with waiting, closing(_Writer(wire.stdout)) as writer:
        outgoing = _Outgoing(queue, writer, wire.answered)
        incoming = _Incoming(wire, outgoing)
        # When the server is cancelled, the last answers may still go out, for a moment.
        writing = anyio.CancelScope(shield=True)
        written = anyio.Event()

        async def write() -> None:
            with writing:
                await outgoing.write_what_waits(waiting)
            written.set()
            # The client is gone: what it requested need not be finished.
            incoming.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            try:
                yield incoming, outgoing
            finally:
                outgoing.close()
                incoming.close()
                with anyio.move_on_after(MESSAGES_DRAIN_TIMEOUT, shield=True):
                    await written.wait()
                writing.cancel()
                tasks.cancel_scope.cancel()


class _Outgoing(ObjectSendStream[SessionMessage]):
    """Messages to the client, each whole, in the order in which they were sent. What the kernel takes at once is
    written by who sends it; the rest, and what comes meanwhile, in a task.

    Args:
        queue: goes to `write_what_waits`.
        writer: writes.
        answered: the id of a request that the client has its answer to already.
    """

    def __init__(
        self, queue: MemoryObjectSendStream[SessionMessage | bytes], writer: _Writer, answered: RequestId | None
    ) -> None:
        self._queue = queue
        self._writer = writer
        self._answered = answered
        self._is_idle = False

    async def send(self, item: SessionMessage) -> None:
        """See the base."""
        if not self._is_idle:  # else it would overtake one that is being written
            return await self._queue.send(item)
        if self._is_left_out(item):
            return None
        data = _encode(item)
        try:
            left: bytes | None = data[self._writer.write_at_once(data) :]
        except OSError as exc:
            _client_is_gone(exc)
            left = None
        if left != b"":
            # The task waits for it, and so takes it now.
            self._is_idle = False
            self._queue.send_nowait(left or b"")
        return None

    async def write_what_waits(self, waiting: MemoryObjectReceiveStream[SessionMessage | bytes]) -> None:
        """Until there is nothing more, or nobody reads."""
        async with waiting:
            while True:
                self._is_idle = True
                try:
                    item = await waiting.receive()
                except anyio.EndOfStream:
                    return
                finally:
                    self._is_idle = False
                if isinstance(item, bytes):
                    data = item
                elif self._is_left_out(item):
                    continue
                else:
                    data = _encode(item)
                if not data or not await self._writer.write(data):
                    return

    def close(self) -> None:
        """No more will come."""
        self._queue.close()

    async def aclose(self) -> None:
        """See `close`."""
        self.close()

    def _is_left_out(self, item: SessionMessage) -> bool:
        if self._answered is None or not _answers(item.message, self._answered):
            return False
        self._answered = None
        return True


def _answers(message: JSONRPCMessage, identity: RequestId) -> bool:
    """Whether it is the answer to that request, which the client has already (`greet`)."""
    if isinstance(message, JSONRPCError) and message.id == identity:
        logger.error("a first message was answered that should have been refused: {}", message.error.code)
    return isinstance(message, JSONRPCResponse | JSONRPCError) and message.id == identity


class _Incoming(ObjectReceiveStream[SessionMessage | Exception]):
    """Messages from the client, read when they are asked for. What is none is refused.

    Args:
        wire: where they come from.
        outgoing: where refusals go.
    """

    def __init__(self, wire: Wire, outgoing: _Outgoing) -> None:
        self._descriptor = wire.stdin
        self._outgoing = outgoing
        self._lines = _Lines()
        self._found = self._lines.take(wire.read) if wire.read else iter(())
        self._is_closed = self._is_over = False
        self._ready: asyncio.Future[None] | None = None
        self._pieces: MemoryObjectReceiveStream[bytes] | None = None

    async def receive(self) -> SessionMessage | Exception:
        """See the base."""
        while True:
            for line in self._found:
                message = await _decode_somewhere(line)
                if isinstance(message, JSONRPCError):
                    await self._outgoing.send(SessionMessage(message))
                elif message is not None:
                    return message
            if self._is_over:
                raise anyio.EndOfStream
            data = await self._next()
            self._is_over = not data
            self._found = self._lines.take(data)

    def close(self) -> None:
        """Who waits for a message finds the end."""
        self._is_closed = True
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        if self._pieces is not None:
            self._pieces.close()

    async def aclose(self) -> None:
        """See `close`."""
        self.close()

    async def _next(self) -> bytes:
        """The next bytes; none at the end."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        if not tells_readiness(self._descriptor):
            return await self._next_of_thread()
        loop = asyncio.get_running_loop()
        while not self._is_closed:
            ready = self._ready = loop.create_future()
            loop.add_reader(self._descriptor, _settle, ready)
            try:
                await ready
            finally:
                loop.remove_reader(self._descriptor)
            try:
                return b"" if self._is_closed else _read_some(self._descriptor)
            except BlockingIOError:  # the client has made its end of the same socket non-blocking, and ours with it
                continue
        return b""

    async def _next_of_thread(self) -> bytes:
        if self._is_closed:
            return b""
        if self._pieces is None:
            send, self._pieces = anyio.create_memory_object_stream[bytes](0)
            arguments = (send, anyio.lowlevel.current_token())
            threading.Thread(target=self._read, args=arguments, name="mcp-stdin", daemon=True).start()
        try:
            return await self._pieces.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return b""

    def _read(self, pieces: MemoryObjectSendStream[bytes], token: anyio.lowlevel.EventLoopToken) -> None:
        try:
            while data := _read_some(self._descriptor):
                anyio.from_thread.run(pieces.send, data, token=token)
            anyio.from_thread.run_sync(pieces.close, token=token)
        except _SERVER_ENDED:
            logger.debug("the server ended before its standard input")


async def _decode_somewhere(line: bytes | None) -> SessionMessage | JSONRPCError | None:
    if line is not None and len(line) > _DECODED_AT_ONCE:
        return await anyio.to_thread.run_sync(_decode, line)
    return _decode(line)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


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
            left = data[self.write_at_once(data) :]
        except OSError as exc:
            return _client_is_gone(exc)
        return not left or await self._write_in_thread(left)

    def write_at_once(self, data: bytes) -> int:
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
