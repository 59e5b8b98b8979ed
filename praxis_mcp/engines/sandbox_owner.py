"""Whose a control group or a sandbox is: a server's process, so that another server can see whether it lives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from praxis_mcp.engines.docker_labels import HOST, PID, SERVER, STARTED, ServerIdentity, is_orphan


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
        here = _identity(os.getpid())
        labels = {SERVER: "another", HOST: here.host, PID: str(self.pid), STARTED: self.started}
        return self != self.current() and self.namespace == _namespace() and is_orphan(labels, here)

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}-{self.namespace}"


@cache
def _current(pid: int) -> Owner:
    return Owner(pid, _identity(pid).started, _namespace())


@cache
def _identity(pid: int) -> ServerIdentity:
    return ServerIdentity.current()


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # closed to a process that has changed its user: nobody can look its children's owner up
        return 0
