"""Everything that a command has started, and how it is ended.

A process group does not bound a tool: ``setsid`` leaves it. What does, best first: a pid namespace (`NamespaceTree`),
praxis-init as a child subreaper (`SupervisedTree`), and, where there is neither, descent and a mark in the
environment, read from /proc (`MarkedTree`; the idea of Jenkins' ProcessTreeKiller).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

TERM_GRACE = 0.5
"""Seconds between asking a tool to end and killing it."""
_KILL_AGAIN_AFTER = 0.01
_INIT_GIVES_UP_AFTER = 6.0
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
        self.grace = TERM_GRACE + _INIT_GIVES_UP_AFTER

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
