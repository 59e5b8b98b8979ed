"""Messages to a client on a pipe or socket: each whole, in order, and no reader that is slow stops the event loop."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import select
import socket
import stat
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable

import anyio
import anyio.from_thread
import anyio.lowlevel
from anyio.abc import ObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCResponse, RequestId

from praxis_mcp.serving.wire import tells_readiness
from praxis_mcp.support.logs import logger
from praxis_mcp.support.text import escape_line_ends

_WRITTEN_AT_ONCE = 64 * 1024
"""Bytes of a message that the event loop writes itself, at most: what an empty pipe takes."""
SERVER_ENDED = (
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
    concurrent.futures.CancelledError,
    RuntimeError,  # the event loop is closed
)
"""What a thread meets that hands something to an event loop which has ended."""


class Outgoing(ObjectSendStream[SessionMessage]):
    """Messages to the client, each whole, in the order in which they were sent. What the kernel takes at once is
    written by who sends it; the rest, and what comes meanwhile, by `write_what_waits`.

    Args:
        writer: writes.
        answered: the id of a request that the client has its answer to already.
    """

    def __init__(self, writer: Writer, answered: RequestId | None) -> None:
        self._writer = writer
        self._answered = answered
        # By what its sender waits for. One that is cancelled finds its own at once: thousands may be, together.
        self._waiting: OrderedDict[anyio.Event, SessionMessage | bytes] = OrderedDict()
        self._is_writing = self._is_closed = self._is_broken = False
        self._wake = anyio.Event()

    async def send(self, item: SessionMessage) -> None:
        """Send a message; who sends while others wait, waits until its own has its turn.

        Raises:
            anyio.ClosedResourceError: this is closed.
            anyio.BrokenResourceError: the client is gone.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._is_closed:
            raise anyio.ClosedResourceError
        if self._is_broken:
            raise anyio.BrokenResourceError
        if not (self._waiting or self._is_writing):
            self._write_at_once(item)
            return
        taken = self._put(item)
        try:
            await taken.wait()
        finally:
            self._waiting.pop(taken, None)

    async def write_what_waits(self) -> None:
        """Until this is closed and all is written, or nobody reads."""
        try:
            while self._waiting or not self._is_closed:
                if not self._waiting:
                    self._wake = anyio.Event()
                    await self._wake.wait()
                    continue
                taken, item = self._waiting.popitem(last=False)
                self._is_writing = True
                taken.set()
                data = item if isinstance(item, bytes) else self._encoded(item)
                if data is not None and not (data and await self._writer.write(data)):
                    return
                self._is_writing = False
        finally:
            self._is_broken = True
            for taken in self._waiting:
                taken.set()
            self._waiting.clear()

    def close(self) -> None:
        """No more will come."""
        self._is_closed = True
        self._wake.set()

    async def aclose(self) -> None:
        """See `close`."""
        self.close()

    def _write_at_once(self, item: SessionMessage) -> None:
        if (data := self._encoded(item)) is None:
            return
        try:
            left = data[self._writer.write_at_once(data) :]
        except OSError as exc:
            _client_is_gone(exc)
            left = None
        if left != b"":
            self._put(left or b"")

    def _put(self, item: SessionMessage | bytes) -> anyio.Event:
        taken = anyio.Event()
        self._waiting[taken] = item
        self._wake.set()
        return taken

    def _encoded(self, item: SessionMessage) -> bytes | None:
        """As it is written; None for one that is left out."""
        if self._answered is not None and _answers(item.message, self._answered):
            self._answered = None
            return None
        return encode(item)


class Writer:
    """Writes messages, without blocking the event loop where a client does not read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # A file as well: no reader can keep one waiting, and where both ends are files the input's comes at once.
        self._is_prompt = tells_readiness(descriptor) or _is_file(descriptor)
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
        while self._is_prompt and written < min(len(data), _WRITTEN_AT_ONCE) and self._is_ready():
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
        except SERVER_ENDED:
            logger.debug("the server ended before the last message was written")


def _is_file(descriptor: int) -> bool:
    return sys.platform != "win32" and stat.S_ISREG(os.fstat(descriptor).st_mode)


def _is_socket(descriptor: int) -> bool:
    return sys.platform != "win32" and stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def _answers(message: JSONRPCMessage, identity: RequestId) -> bool:
    """Whether it is the answer to that request, which the client has already (`greet`)."""
    if isinstance(message, JSONRPCError) and message.id == identity:
        logger.error("a first message was answered that should have been refused: {}", message.error.code)
    return isinstance(message, JSONRPCResponse | JSONRPCError) and message.id == identity


def _write_all(descriptor: int, data: bytes) -> bool:
    view = memoryview(data)
    try:
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # as in `Incoming`
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


def encode(message: SessionMessage) -> bytes:
    try:
        return escape_line_ends(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode()) + b"\n"
    except ValueError as exc:
        # Text that JSON cannot carry must cost one answer, not the connection.
        logger.error("a message could not be written: {}", type(exc).__name__)
        identity = message.message.id if isinstance(message.message, JSONRPCResponse) else None
        answer = refusal(identity, INTERNAL_ERROR, "The answer holds text that JSON cannot carry.")
        return answer.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"


def refusal(identity: RequestId | None, code: int, message: str) -> JSONRPCError:
    """An error for a message; `identity` is its id, None where it has none that can be read."""
    return JSONRPCError(jsonrpc="2.0", id=identity, error=ErrorData(code=code, message=message))
