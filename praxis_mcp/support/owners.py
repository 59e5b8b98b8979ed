"""Whose a process, a control group or a container is: a server's process, which another server can look up.

Process ids are used again, so a process is known by its id and its start together. Ids count in one pid namespace of
one boot only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ENDED = "ended"
"""Instead of the start of a process that has ended and waits for its parent to collect it."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A server process: its id, its start (proc(5), stat field 22), and the pid namespace in which that id counts."""

    pid: int
    started: str
    namespace: int

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        return _current(os.getpid())

    @classmethod
    def parse(cls, text: str) -> Owner:
        """What `str` has written.

        Raises:
            ValueError: it is something else.
        """
        pid, started, namespace = text.split("-")
        return cls(int(pid), started, int(namespace))

    @property
    def is_gone(self) -> bool:
        """Whether it has ended; False where that cannot be looked up from here."""
        if self == self.current() or self.namespace != _namespace():
            return False
        return is_alive(self.pid, self.started) is False

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}-{self.namespace}"


def this_machine() -> str:
    """Boot id and pid namespace, in which process ids count; empty where the system has no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_of(pid: int) -> str:
    """When a process started, in clock ticks since boot (proc(5), stat field 22), or that it has ended. Empty where
    that cannot be read."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name, in parentheses, may hold spaces and parentheses itself; fields are counted after the last one.
    fields = status.rpartition(")")[2].split()
    return _ENDED if fields[0] == "Z" else fields[19]


def is_alive(pid: int, started: str) -> bool | None:
    """Whether the process of this pid namespace that started then still runs; None where that cannot be looked up.

    What cannot be read is not gone: where /proc is mounted with hidepid=2 (proc(5)), the processes of other users look
    as if they did not exist, and only the signal that is not sent shows that they do (kill(2): EPERM).
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    found = start_of(pid)
    if not found or not started:
        return None
    return found == started


@cache
def _current(pid: int) -> Owner:
    return Owner(pid, start_of(pid), _namespace())


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # closed to a process that has changed its user: nobody can look its children's owner up
        return 0
