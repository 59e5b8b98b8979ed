"""The keys that somebody presses, one by one, on a terminal that is given back as it was however the command ends."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import anyio

from praxis_mcp.cli.terminal import say
from praxis_mcp.support.tasks import unwrapped

if sys.platform != "win32":
    import termios
    import tty

_MOST_BYTES = 4096
"""Of one read: a terminal has no longer line."""

_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*.|O.|.)?", re.DOTALL)
"""Arrows, function keys and the like, none of which means anything here (ECMA-48, 5.4)."""


def has_keys() -> bool:
    """Whether there is a terminal to read keys from, and to write to."""
    return sys.platform != "win32" and sys.stdin.isatty() and sys.stdout.isatty()


class Keys:
    """The keys of standard input, which must be a terminal (`has_keys`).

    Meanwhile keys come at once and are not shown; Ctrl-C and Ctrl-Z do what they always do. While Ctrl-Z has
    it stopped, the terminal is as it was before.
    """

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._as_it_was = termios.tcgetattr(self._descriptor)
        self._reads_line = False

    async def run(self, on_key: Callable[[str], Awaitable[bool]]) -> None:
        """Await `on_key` for each key, until it says False, the terminal is closed, or the task is cancelled."""
        with self._at_once(), unwrapped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow_job_control)
                await self._until_false(on_key)
                tasks.cancel_scope.cancel()

    async def _until_false(self, on_key: Callable[[str], Awaitable[bool]]) -> None:
        while text := await self._read():
            for key in _SEQUENCE.sub("", text):
                if not await on_key(key):
                    return

    async def read_line(self, prompt: str) -> str:
        """A line, with the terminal's own means of editing; empty where none is given (Ctrl-D)."""
        self._reads_line = True
        self._restore()
        try:
            say(prompt, nl=False)
            sys.stdout.flush()
            return (await self._read()).strip()
        finally:
            self._reads_line = False
            self._take_at_once()

    async def _read(self) -> str:
        await anyio.wait_readable(self._descriptor)
        try:
            return os.read(self._descriptor, _MOST_BYTES).decode(errors="replace")
        except OSError:  # the terminal is gone
            return ""

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        self._take_at_once()
        try:
            yield
        finally:
            self._restore()

    def _take_at_once(self) -> None:
        with suppress(OSError, termios.error):
            # Of a process in the background, the terminal is somebody else's.
            if not self._reads_line and os.tcgetpgrp(self._descriptor) == os.getpgrp():
                tty.setcbreak(self._descriptor, termios.TCSANOW)

    def _restore(self) -> None:
        with suppress(OSError, termios.error):
            if os.tcgetpgrp(self._descriptor) == os.getpgrp():
                termios.tcsetattr(self._descriptor, termios.TCSANOW, self._as_it_was)

    async def _follow_job_control(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTSTP, signal.SIGCONT) as signals:
            async for number in signals:
                if number == signal.SIGTSTP:
                    self._restore()
                    own = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
                    os.kill(os.getpid(), signal.SIGTSTP)
                    signal.signal(signal.SIGTSTP, own)  # from here on it goes on
                self._take_at_once()
