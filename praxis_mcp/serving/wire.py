"""The process's standard input and output, taken for MCP so that nothing else can write between its messages.

Imports nothing but the standard library: a process takes its wire before it imports anything that might print.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wire:
    """Private descriptors of what were standard input and output. They stay open until the process ends, because a
    thread may be blocked on them.

    Attributes:
        read: what has been read of standard input already.
        answered: the id of a request in there that has been answered.
    """

    stdin: int
    stdout: int
    read: bytes = b""
    answered: int | str | None = None


@contextmanager
def take_wire() -> Iterator[Wire]:
    """Take standard input and output for MCP.

    Meanwhile file descriptor 0 is the null device, so that no child reads the client's messages, and 1 is standard
    error, so that a stray ``print``, of this process or of a child, lands in the log.
    """
    sys.stdout.flush()
    # dup gives descriptors that children do not inherit (PEP 446).
    wire = Wire(_dup_above_standard(0), _dup_above_standard(1))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    try:
        yield wire
    finally:
        sys.stdout.flush()
        os.dup2(wire.stdin, 0)
        os.dup2(wire.stdout, 1)


def tells_readiness(descriptor: int) -> bool:
    """Whether the event loop can wait for it, as for no file and, on Windows, no pipe."""
    mode = os.fstat(descriptor).st_mode
    return sys.platform != "win32" and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def _dup_above_standard(descriptor: int) -> int:
    # With standard error closed, dup could give number 2, and every log line would land on the wire.
    low: list[int] = []
    try:
        while (copy := os.dup(descriptor)) <= 2:
            low.append(copy)
        return copy
    finally:
        for number in low:
            os.close(number)


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGINT, SIGTERM, and SIGHUP (the terminal or the session is gone, or a service manager wants a fresh process),
    unless the parent process has it ignore that, as nohup(1) does."""
    found = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        found.append(hangup)
    return tuple(found)


def end_when_signalled() -> None:
    """End normally at a signal that comes before anything waits for signals (`lifetime.until_signalled`): a client that
    has its first answer counts on that, and so does who stops a server that has just been started.

    Nothing runs by then that an end at once could harm. An exception would be raised in the midst of an import, where
    others catch it: pydantic made an error of its own of it, and a weak reference's callback lost it.
    """

    def end(*_: object) -> None:
        os._exit(0)

    for number in stop_signals():
        signal.signal(number, end)
