"""Whose a process, a control group or a container is: a server's process, which another server can look up.

Process ids are used again, so a process is known by its id and its start together. Ids count in one pid namespace of
one boot only.

What dies with its parent (bubblewrap, praxis-init) has to ask for that first, and a server can be killed in the moment
between: on a busy machine that is several of a hundred. So each carries its owner in its environment, and the next
server ends what belongs to none (`kill_orphans`).
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from praxis_mcp.support.logs import logger
from praxis_mcp.support.processes import send_signal

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


OWNER_VARIABLE = "PRAXIS_RUN_OF"
"""In the environment of what a server starts for a call: whose it is (`Owner`)."""


SUPERVISOR_TIMEOUT = 15.0
"""Seconds that praxis-init may take to end its tree, from the first look that found it; it gives up after 7 itself."""

_sigterm_times: dict[int, float] = {}


def kill_orphans() -> tuple[str, ...]:
    """Kill what servers started that are gone, and name it; never anything of a server that lives. Blocks: it reads all
    of /proc."""
    found: list[int] = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):  # it has ended just now, is another user's, or says something else there
            for entry in (directory / "environ").read_bytes().split(b"\0"):
                name, _, value = entry.partition(b"=")
                if name == OWNER_VARIABLE.encode() and Owner.parse(value.decode()).is_gone:
                    found.append(int(directory.name))
    # A server that a tool has started is not a tool.
    found = [pid for pid in found if pid != os.getpid()]
    # praxis-init also ends those of its tree that no longer say whose they are, and nobody else would find these.
    supervisors = [pid for pid in found if _is_supervisor(pid)]
    late = _late(supervisors)
    send_signal((pid for pid in found if pid in late or pid not in supervisors), signal.SIGKILL)
    send_signal((pid for pid in supervisors if pid not in late), signal.SIGTERM)
    if found:
        logger.info("killed {} processes of servers that are gone", len(found))
    return tuple(f"process {pid}" for pid in found)


def _late(supervisors: list[int]) -> set[int]:
    """Which of them were sent SIGTERM long enough ago."""
    now = time.monotonic()
    for pid in [pid for pid in list(_sigterm_times) if pid not in supervisors]:
        _sigterm_times.pop(pid, None)  # engines look at the same time, in threads
    return {pid for pid in supervisors if now - _sigterm_times.setdefault(pid, now) > SUPERVISOR_TIMEOUT}


def _is_supervisor(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.startswith("praxis-init-")
    except OSError:
        return False
