"""A command's pipes: what it writes goes into collectors, what it is to read is written.

As far as that needs no wait it is done in callbacks of the event loop. A task for each pipe, and what wakes it, takes
longer than all else that is done with the output of a short command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import IO

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from praxis_mcp.engines.output import StreamCollector
from praxis_mcp.support.tasks import settle

_PIECE = 256 * 1024
# Fewer, larger reads. Not the most the kernel grants (1 MiB): a user's pipes share 64 MiB, beyond which every program
# of that user gets tiny ones (pipe(7), pipe-user-pages-soft).
_PIPE_SIZE = 256 * 1024
_LONG = 32 * 1024
"""Bytes at once from which on a larger pipe pays."""
READ_AFTER = 0.004
"""Seconds for which a pipe fills by itself: most commands of milliseconds have ended then, and all that they wrote is
read at once, without a round of the event loop for each pipe."""
_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032


class PipeReader:
    """Reads a pipe into a collector, to its end.

    Args:
        stream: the pipe.
        into: takes it in.
        tasks: for what needs a wait: a stream that goes to a file, any on Windows. An exception of the collector's
            leaves there.
    """

    def __init__(self, stream: IO[bytes], into: StreamCollector, tasks: TaskGroup) -> None:
        self._stream = stream
        self._into = into
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._is_watched = False
        self._is_taken = False  # to its end, or by a task
        self._ended: asyncio.Future[None] = self._loop.create_future()
        if sys.platform == "win32":
            self._is_taken = True
            self._tasks.start_soon(self._read_on, b"")
        else:
            os.set_blocking(stream.fileno(), False)

    async def finish(self, *, at_once: bool = False) -> None:
        """Return at the pipe's end. Once every writer has ended, that is at once: what is in the pipe, and its end, are
        two reads.

        Args:
            at_once: nobody writes any more, though somebody holds the pipe: what is in it now is all.
        """
        # The command may have made the pipe larger. A bound, because somebody outside may have been given its end.
        for _ in range(2 + _size(self._stream.fileno()) // _PIECE if at_once else 2):
            if self._is_taken or not self._read():
                break
        if at_once and not self._is_taken:
            self._unwatch()
        elif not self._ended.done():
            self.watch()
            await self._ended

    def close(self) -> None:
        """Stop reading, and close it."""
        self._unwatch()
        self._stream.close()

    def _read(self) -> bool:
        """Take in what has come, as far as that needs no wait; whether there was anything."""
        try:
            data = os.read(self._stream.fileno(), _PIECE)
            if data and self._into.take(data):
                if len(data) >= _LONG:
                    _enlarge(self._stream.fileno())
                return True
        except BlockingIOError:
            return False
        except Exception as exc:  # noqa: BLE001 - in a callback it would be lost
            self._take()
            self._tasks.start_soon(_fail, exc)
            return False
        self._take()
        if data:
            self._tasks.start_soon(self._read_on, data)
        else:
            self._ended.set_result(None)
        return False

    def watch(self) -> None:
        """Read whenever there is something."""
        if not (self._is_taken or self._is_watched):
            self._is_watched = True
            self._loop.add_reader(self._stream.fileno(), self._read)

    def _take(self) -> None:
        self._is_taken = True
        self._unwatch()

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._stream.fileno())

    async def _read_on(self, data: bytes) -> None:
        """The rest of it, from `data` on; the command waits while a piece is being kept."""
        _enlarge(self._stream.fileno())
        if data:
            await self._into.write(data)
        while data := await _next(self._stream.fileno()):
            await self._into.write(data)
        self._ended.set_result(None)


async def _fail(reason: BaseException) -> None:
    raise reason


async def _next(descriptor: int) -> bytes:
    if sys.platform == "win32":
        return await anyio.to_thread.run_sync(os.read, descriptor, _PIECE, abandon_on_cancel=True)
    while True:
        await anyio.wait_readable(descriptor)
        with contextlib.suppress(BlockingIOError):
            return os.read(descriptor, _PIECE)


def feed(stream: IO[bytes], data: bytes, tasks: TaskGroup) -> None:
    """Write all of it and close, in a task where that needs a wait. A command may end, or close its input, before it
    has read everything."""
    if sys.platform != "win32":
        os.set_blocking(stream.fileno(), False)
        try:
            data = data[os.write(stream.fileno(), data[:_PIECE]) :] if data else data
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            data = b""
        if not data:
            stream.close()
            return
    tasks.start_soon(_feed, stream, data)


async def _feed(stream: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if sys.platform == "win32":
            await anyio.to_thread.run_sync(stream.write, data, abandon_on_cancel=True)
        else:
            left = memoryview(data)
            while left:
                await anyio.wait_writable(stream.fileno())
                left = left[os.write(stream.fileno(), left[:_PIECE]) :]
    stream.close()


async def readable(*descriptors: int) -> None:
    """Return when there is something to be read from one of them, or its end; each is for one task at a time."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        for descriptor in descriptors:
            loop.add_reader(descriptor, settle, ready)
        await ready
    finally:
        for descriptor in descriptors:
            loop.remove_reader(descriptor)


def _size(descriptor: int) -> int:
    """Bytes that a pipe holds at most."""
    if sys.platform != "linux":
        return _PIPE_SIZE
    import fcntl

    return fcntl.fcntl(descriptor, _F_GETPIPE_SZ)


def _enlarge(descriptor: int) -> None:
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # the user's share is used up: the usual 64 KiB do
            fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_SIZE)
