"""What is mounted on this machine, and whether that has changed: a sandbox that waits has what was mounted when it was
made."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable, Iterator

_TABLE = "/proc/self/mountinfo"
_ESCAPE = re.compile(r"\\([0-7]{3})")
_TABLE_PIECE = 256 * 1024


def place_of(line: str) -> str:
    """Where a line of the table (proc_pid_mountinfo(5)) has something mounted; spaces and the like are in octal."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), line.split(" ", 5)[4])


class MountTable:
    """The table of this process's mount namespace. The kernel tells when it changes (poll, proc_pid_mountinfo(5)), so
    that looking costs some microseconds where it has not. Raises OSError where there is none."""

    def __init__(self) -> None:
        self._file = os.open(_TABLE, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLPRI | select.POLLERR)
        self._version = 0
        self._lines: dict[str, str] | None = None

    @property
    def version(self) -> int:
        """Another number whenever anything was mounted or unmounted since the last time."""
        if self._file >= 0 and self._poll.poll(0):
            self._version += 1
            self._lines = None
        return self._version

    def select(self, is_wanted: Callable[[str], bool]) -> frozenset[str]:
        """The lines of what is mounted at the places that are wanted. Reads the table alone, and touches none of the
        file systems: one that hangs holds nobody up.

        Raises:
            OSError: it cannot be read, or has been closed.
        """
        if self._lines is None:
            self._lines = {line: place_of(line) for line in self._read() if line}
        return frozenset(line for line, place in self._lines.items() if is_wanted(place))

    def close(self) -> None:
        """Let go of it; from then on `version` is another one than ever."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._version, self._lines = -1, -1, None

    def _read(self) -> Iterator[str]:
        os.lseek(self._file, 0, os.SEEK_SET)
        found = b""
        while piece := os.read(self._file, _TABLE_PIECE):
            found += piece
        return iter(found.decode(errors="surrogateescape").split("\n"))
