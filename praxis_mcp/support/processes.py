"""Everything that a command has started, how it is ended, and whose it is.

A process group does not bound a tool: ``setsid`` leaves it. What does, best first: a pid namespace (`NamespaceTree`),
praxis-init as a child subreaper (`SupervisedTree`), and, where there is neither, descent and a mark in the
environment, read from /proc (`MarkedTree`; the idea of Jenkins' ProcessTreeKiller).

Process ids are used again, so a process is known by its id and its start together. Ids count in one pid namespace of
one boot only. What dies with its parent (bubblewrap, praxis-init) has to ask for that first, and a server can be killed
in the moment between: on a busy machine that is several of a hundred. So each carries its owner in its environment, and
the next server ends what belongs to none (`kill_orphans`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from praxis_mcp.support.logs import logger

TERM_GRACE = 0.5
"""Seconds between asking a tool to end and killing it."""
_KILL_AGAIN_AFTER = 0.01
INIT_GIVES_UP_AFTER = 6.0
"""Seconds after which praxis-init, once it kills, has either succeeded or stopped trying (5), and a little."""


class ProcessTree(ABC):
    """A started command and all its descendants.

    Attributes:
        grace: seconds to wait for the command's own end after `terminate`.
    """

    grace: float = TERM_GRACE

    @property
    def is_gone(self) -> bool:
        """Whether all of it is known to have ended, so that there is nothing to `kill`."""
        return False

    @abstractmethod
    async def terminate(self) -> None:
        """Ask everything to end (SIGTERM)."""

    @abstractmethod
    async def kill(self) -> None:
        """Kill what is left and return when nothing is; the caller bounds the wait. Also called after the command
        ended by itself: what it left in the background goes too."""

    def close(self) -> None:
        """Release descriptors. Nothing by default."""


class Command(Protocol):
    """A process that was started, as `subprocess.Popen` is."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...


class MarkedTree(ProcessTree):
    """What descends from the command, or carries `mark` (``NAME=value``) in its environment.

    A process that detaches itself *and* clears its environment escapes; on systems without /proc so does every one
    that leaves the process group.
    """

    def __init__(self, command: Command, mark: str) -> None:
        self._command = command
        self._mark = mark.encode()
        self._limiter = anyio.CapacityLimiter(1)  # one of our own: a kill must not queue behind busy threads

    async def terminate(self) -> None:
        await anyio.to_thread.run_sync(self._signal, signal.SIGTERM, limiter=self._limiter)

    async def kill(self) -> None:
        while await anyio.to_thread.run_sync(self._signal, _sigkill(), limiter=self._limiter):
            await anyio.sleep(_KILL_AGAIN_AFTER)
            self._command.poll()

    def _signal(self, number: int) -> bool:
        """Signal everything there is; whether there was anything."""
        running = self._command.returncode is None
        if sys.platform != "linux":
            if running:
                _signal_group(self._command, number)
            return running
        roots = {pid for pid in _processes() if self._mark in _environment(pid)}
        if running:
            roots.add(self._command.pid)
        found = _with_descendants(roots) - {os.getpid()}
        send_signal(found, number)
        return bool(found)


class SupervisedTree(MarkedTree):
    """A command under praxis-init, which ends the whole tree itself, whatever in it had detached."""

    def __init__(self, command: Command, mark: str) -> None:
        super().__init__(command, mark)
        self.grace = TERM_GRACE + INIT_GIVES_UP_AFTER

    async def terminate(self) -> None:
        send_signal([self._command.pid], signal.SIGTERM)

    @property
    def is_gone(self) -> bool:
        # praxis-init leaves after the last process of the tree, unless it was killed itself.
        return self._command.returncode is not None and self._command.returncode >= 0

    async def kill(self) -> None:
        if not self.is_gone:
            await super().kill()


class NamespaceTree(ProcessTree):
    """A command under bubblewrap in a pid namespace: with the namespace's init, all of it dies.

    Args:
        command: bubblewrap itself, outside the namespace.
        init_pid: asks for the namespace's init, by its number outside; None while it does not exist.
    """

    def __init__(self, command: subprocess.Popen[bytes], init_pid: Callable[[], int | None]) -> None:
        self._command = command
        self._init_pid = init_pid
        self._pidfd: int | None = None
        self._is_terminated = False

    async def terminate(self) -> None:
        self._is_terminated = True
        # Not to bubblewrap: it would die of it, and take the tool along without a chance to finish. Not to init, which
        # has no handler, and which the kernel therefore spares.
        if self._open_init() and (init := self._init_pid()) is not None:
            send_signal(await self._below(init) - {init}, signal.SIGTERM)

    async def kill(self) -> None:
        if self._command.returncode is None and not self._open_init():
            # Bubblewrap is still setting up. Its child may not have asked yet to die with it.
            send_signal(await self._below(self._command.pid), _sigkill())
        if self._open_init():
            assert self._pidfd is not None
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, _sigkill())
            # Where the command has ended by itself, an init without children is all that is left, and can start nothing
            # more. Its own end is that of the namespaces, which may take the kernel longer than the command took.
            ended_by_itself = self._command.returncode is not None and not self._is_terminated
            if not ended_by_itself or self._has_children():
                await anyio.wait_readable(self._pidfd)
        if self._command.returncode is None:
            self._command.kill()

    def _has_children(self) -> bool:
        """Whether the init has any, as all processes of its namespace would be sooner or later; True if unknown."""
        pid = self._init_pid()
        try:
            return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        except OSError:  # it is gone, or the kernel is built without that file (CONFIG_PROC_CHILDREN)
            return True

    async def _below(self, pid: int) -> set[int]:
        return await anyio.to_thread.run_sync(_with_descendants, {pid}, limiter=anyio.CapacityLimiter(1))

    def _open_init(self) -> bool:
        if self._pidfd is None and (pid := self._init_pid()) is not None:
            with contextlib.suppress(OSError):  # it is gone
                self._pidfd = os.pidfd_open(pid)
            if self._pidfd is not None and not _is_namespace_init(pid):
                self.close()  # the number already belongs to another process
        return self._pidfd is not None

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def send_signal(pids: Iterable[int], number: int) -> None:
    """Signal each of them that still exists and may be signalled."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _sigkill() -> int:
    return getattr(signal, "SIGKILL", signal.SIGTERM)


def _signal_group(command: Command, number: int) -> None:
    if sys.platform == "win32":
        os.kill(command.pid, signal.SIGTERM)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(command.pid, number)


def _processes() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, or another user's
        return b""


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # "PID (NAME) STATE PARENT …": a process chooses its name, which may hold spaces and parentheses.
    state, parent = stat.rpartition(b")")[2].split(None, 2)[:2]
    return 0 if state == b"Z" else int(parent)


def _with_descendants(roots: set[int]) -> set[int]:
    """`roots` and all that descends from them."""
    children: dict[int, list[int]] = {}
    for pid in _processes():
        children.setdefault(_parent(pid), []).append(pid)
    found, waiting = set(roots), list(roots)
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(new)
        waiting += new
    return found


def _is_namespace_init(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == "1"


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
