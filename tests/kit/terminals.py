"""A program on a terminal of its own, as a shell with job control starts it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kit.until import WITHIN, until_blocking

_SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.write(int(sys.argv[1]), b"%d\\n" % os.getpid())
    os.close(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
"""
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program on a terminal.

    Attributes:
        pid: of the program, which leads the terminal's foreground process group.
        text: all that it has written so far, without colours.
    """

    def __init__(self, master: int, shell: subprocess.Popen[bytes], pid: int) -> None:
        self._master = master
        self._shell = shell
        self.pid = pid
        self.text = ""

    def type(self, keys: str) -> None:
        """Send keys to it."""
        os.write(self._master, keys.encode())

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def expect(self, text: str, *, after: int = 0) -> int:
        """Wait for it to write a text.

        Args:
            text: what to wait for.
            after: where to begin looking for it in `self.text`.

        Returns:
            The place in `self.text` where the text ends.
        """
        until = time.monotonic() + WITHIN
        while text not in self.text[after:]:
            left = until - time.monotonic()
            assert left > 0, f"not within {WITHIN:g} s: {text!r}, after {self.text[after:]!r}"
            assert self._read(left), f"it ended without {text!r}, after {self.text[after:]!r}"
        return self.text.index(text, after) + len(text)

    def _read(self, patience: float) -> bool:
        if select.select([self._master], [], [], patience)[0]:
            try:
                piece = os.read(self._master, 65536)
            except OSError:  # nothing has the other end open
                return False
            self.text += _STEERING.sub("", piece.decode(errors="replace").replace("\r\n", "\n"))
        return True

    @property
    def is_cooked(self) -> bool:
        """Whether the terminal shows what is typed, and gives it line by line, as a shell expects it."""
        flags = termios.tcgetattr(self._master)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    def until_stopped(self) -> None:
        """Wait until the program has been stopped by a signal."""
        status = Path(f"/proc/{self.pid}/stat")
        until_blocking(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", what="it stops")

    def wait(self) -> int:
        """Wait for its end, with its exit code, or 256 less the number of the signal."""
        until = time.monotonic() + WITHIN
        while self._read(max(0.0, until - time.monotonic())) and time.monotonic() < until:
            pass
        return self._shell.wait(timeout=WITHIN)


@contextmanager
def on_terminal(words: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    """A program on a terminal of 100 columns; it is killed at the end."""
    master, slave = pty.openpty()
    told, tell = os.pipe()
    try:
        termios.tcsetwinsize(slave, (40, 100))
        shell = subprocess.Popen(
            [sys.executable, "-c", _SHELL, str(tell), *words],
            cwd=cwd,
            env={**os.environ, **(env or {}), "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            pass_fds=[tell],
            start_new_session=True,
        )
        os.close(slave)
        os.close(tell)
        with open(told) as reader:
            pid = int(reader.readline())
        try:
            yield Terminal(master, shell, pid)
        finally:
            for number in (pid, shell.pid):
                if shell.poll() is None:
                    with suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)
            shell.wait(timeout=WITHIN)
    finally:
        os.close(master)
