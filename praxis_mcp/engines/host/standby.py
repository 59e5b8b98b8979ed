"""A praxis-init that is there before it is known what for, so that no call waits for it to be started.

It has the namespaces of a sandbox without network, but for that of mounts, and nothing of any tool: the layout of the
sandbox, the command's streams and all else come over a socket that nobody else has (native/FRAMING.md). It serves one
call, and the next one is made behind the answer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO, Literal

import anyio

from praxis_mcp.engines.host.process import (
    LEAVE_AFTER,
    PROCESS_KILL_TIMEOUT,
    Launch,
    end_process,
    exit_of,
    start_process,
)
from praxis_mcp.engines.init.frame_types import FrameType, encode_frame
from praxis_mcp.errors import ExecutionError
from praxis_mcp.settings.sections import WarmSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import standby_words
from praxis_mcp.support.processes import OWNER_VARIABLE, Owner, SupervisedTree
from praxis_mcp.support.tasks import BackgroundTasks

MARK = "PRAXIS_SANDBOX"
"""The variable that marks praxis-init's own processes, with the id of the run or standby. No command gets it."""
MAX_STANDBY_DESCRIPTORS = 64
_LEAVE_TIMEOUT = 1.0


class Standby:
    """One that waits.

    Attributes:
        program, umask: what it was started with.
        ident: marks its processes, see `MARK`.
        is_used: whether it has become something.
    """

    def __init__(self, program: str, umask: int | None) -> None:
        """Raises ExecutionError where it cannot be started."""
        self.program = program
        self.umask = umask
        self.ident = f"standby{os.urandom(6).hex()}"
        self.is_used = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.setblocking(False)
        words = standby_words(program, parent=os.getpid())
        env = {MARK: self.ident, OWNER_VARIABLE: str(Owner.current())}
        launch = Launch(tuple(words), env, channel=theirs.fileno(), own_session=False, umask=umask)
        with theirs:
            try:
                self._process = start_process(launch)  # on the event loop's thread, with which it ends
            except BaseException:
                self._channel.close()
                raise

    @property
    def is_waiting(self) -> bool:
        """Whether it is still there."""
        return self._process.poll() is None

    def become(self, launch: Launch) -> subprocess.Popen[bytes] | None:
        """See `Launch.standby`. Its first descriptors are those of the reply and of the message."""
        streams = (launch.stdin is not None, launch.capture, launch.capture)
        given = {number: number for number in launch.descriptors}
        ours: dict[int, int] = {}
        with ExitStack() as theirs, ExitStack() as on_failure:
            for number, is_piped in enumerate(streams):
                if is_piped:
                    read, write = os.pipe()
                    ours[number], given[number] = (read, write) if number else (write, read)
                    theirs.callback(os.close, given[number])
                    on_failure.callback(os.close, ours[number])
            if not self._send(given):
                return None
            on_failure.pop_all()
        self.is_used = True
        opened = [_open(ours.get(number), "rb" if number else "wb") for number in range(3)]
        self._process.stdin, self._process.stdout, self._process.stderr = opened
        return self._process

    def _send(self, given: dict[int, int]) -> bool:
        if len(given) > MAX_STANDBY_DESCRIPTORS:
            return False
        message = encode_frame(FrameType.DESCRIPTORS, struct.pack(f"<{len(given)}I", *given))
        with self._channel:
            try:
                return socket.send_fds(self._channel, [message], list(given.values())) == len(message)
            except OSError:  # it is gone
                return False

    async def end(self) -> None:
        """End it, where it has become nothing; bounded."""
        self._channel.close()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_LEAVE_TIMEOUT):
                await exit_of(self._process)
            if self._process.returncode is None:
                await end_process(self._process, SupervisedTree(self._process, f"{MARK}={self.ident}"))


def _open(descriptor: int | None, mode: Literal["rb", "wb"]) -> IO[bytes] | None:
    return None if descriptor is None else os.fdopen(descriptor, mode, buffering=0)


class Standbys:
    """Those of one engine: one at most waits.

    Args:
        settings: whether anything may wait for calls, and for how long.
    """

    def __init__(self, settings: WarmSettings) -> None:
        self._settings = settings
        self._background = BackgroundTasks()
        self._ready: Standby | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._given = 0
        self._is_making = False
        self._is_closed = False

    @contextmanager
    def hold(self, program: str, umask: int | None) -> Iterator[Standby | None]:
        """One for the call in the body, or None where none waits; behind it another is made.

        Args:
            program: praxis-init.
            umask: see `Launch`.
        """
        found = self._take()
        if found is not None and not ((found.program, found.umask) == (program, umask) and found.is_waiting):
            self._end_later(found)
            found = None
        try:
            yield found
        finally:
            if found is not None and not found.is_used:
                self._end_later(found)
            self._given += 1
            # Not after the first call: a command line that makes one has no next.
            is_wanted = self._settings.enabled and self._given > 1 and self._ready is None
            if is_wanted and not self._is_making and not self._is_closed:
                self._is_making = True
                self._background.start(partial(self._make, program, umask), "make a standby")

    async def close(self) -> None:
        """End what waits; bounded."""
        self._is_closed = True
        self._drop()
        await self._background.close(PROCESS_KILL_TIMEOUT)
        self._given, self._is_closed = 0, False

    def _take(self) -> Standby | None:
        if self._idle is not None:
            self._idle.cancel()
        found, self._ready, self._idle = self._ready, None, None
        return found

    def _end_later(self, standby: Standby) -> None:
        self._background.start(standby.end, "end a standby")

    def _drop(self) -> None:
        if (ready := self._take()) is not None:
            self._end_later(ready)

    async def _make(self, program: str, umask: int | None) -> None:
        try:
            await anyio.sleep(LEAVE_AFTER)
            if not self._is_closed:
                self._ready = Standby(program, umask)
                self._idle = asyncio.get_running_loop().call_later(self._settings.idle_seconds, self._drop)
        except (ExecutionError, OSError) as exc:  # calls will say it
            logger.debug("nothing stands by for calls: {}", exc)
        finally:
            self._is_making = False
