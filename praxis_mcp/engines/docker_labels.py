"""Labels on containers: whose they are, until when they may live, and which of them nobody owns any more."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from praxis_mcp.plans.model import Blueprint

SERVER = "praxis-mcp.server"
RUN = "praxis-mcp.run"
TOOL = "praxis-mcp.tool"
DEADLINE = "praxis-mcp.deadline"
PID = "praxis-mcp.pid"
STARTED = "praxis-mcp.started"
HOST = "praxis-mcp.host"
CACHE = "praxis-mcp.cache"
CONTAINER = "praxis-mcp.container"
"""The container's name among its server's, which knows by it whether it uses it: see `docker_own`."""
WARM = "praxis-mcp.warm"
"""On a container that was started before its call; it has no run of its own."""

GRACE = 300.0
"""Seconds past its deadline after which a container of a server that cannot be looked up (another machine's, another
pid namespace's) is nobody's: long enough for clocks that differ."""


_ENDED = "ended"
"""Instead of the start of a process that has ended and waits for its parent to be told."""


@dataclass(frozen=True)
class ServerIdentity:
    """One server process, so that another can tell whether it still runs.

    Attributes:
        id: unique; survives nothing.
        pid: process id, in the pid namespace that `host` names.
        started: the process's start, in clock ticks since boot (proc(5), stat field 22); empty where unknown. Process
            ids are used again, this pair is not.
        host: boot id and pid namespace; empty where the system has no /proc, and then only deadlines count.
    """

    id: str
    pid: int
    started: str
    host: str

    @classmethod
    def current(cls) -> ServerIdentity:
        """This process."""
        pid = os.getpid()
        return cls(uuid.uuid4().hex, pid, _started(pid), _host())

    @cached_property
    def labels(self) -> dict[str, str]:
        """The labels that say whose a container is."""
        return {SERVER: self.id, PID: str(self.pid), STARTED: self.started, HOST: self.host}


def call_labels(server: ServerIdentity, blueprint: Blueprint, run_id: str, deadline: float) -> dict[str, str]:
    """Labels of one call's container.

    Args:
        server: whose it is.
        blueprint: what runs in it.
        run_id: id of the run.
        deadline: Unix time at which it must have ended.
    """
    return {**server.labels, RUN: run_id, TOOL: blueprint.tool, DEADLINE: str(int(deadline))}


def waiting_labels(server: ServerIdentity, blueprint: Blueprint, deadline: float) -> dict[str, str]:
    """Labels of a container that waits for a call; `deadline` as in `call_labels`, of the latest call it can have."""
    return {**server.labels, WARM: "1", TOOL: blueprint.tool, DEADLINE: str(int(deadline))}


def is_orphan(
    labels: Mapping[str, str], server: ServerIdentity, used: Collection[str] = (), now: float | None = None
) -> bool:
    """Whether nobody owns the container with these labels any more.

    One of the server's own is an orphan as soon as nothing in it uses the container: one can be left when the
    connection to the daemon was cut. Where the owner was another process that this one can look up, it is one as soon
    as that process has surely ended; everywhere else, when its deadline is long past. What carries none of our labels
    never is.

    Args:
        labels: the container's.
        server: who asks.
        used: the names (`CONTAINER`) of those that the server uses.
        now: Unix time; None is the present.
    """
    if SERVER not in labels:
        return False
    if labels[SERVER] == server.id:
        return labels.get(CONTAINER) not in used
    if labels.get(HOST) and labels[HOST] == server.host and labels.get(PID, "").isdecimal():
        alive = _is_alive(int(labels[PID]), labels.get(STARTED, ""))
        if alive is not None:
            return not alive
    deadline = labels.get(DEADLINE, "")
    return deadline.isdecimal() and int(deadline) + GRACE < (time.time() if now is None else now)


def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, or `_ENDED`; empty where that cannot be read."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name, in parentheses, may hold spaces and parentheses itself; fields are counted after the last one.
    fields = status.rpartition(")")[2].split()
    return _ENDED if fields[0] == "Z" else fields[19]


def _is_alive(pid: int, started: str) -> bool | None:
    """Whether the process that started then still runs; None where that cannot be told.

    What cannot be read is not gone: where /proc is mounted with hidepid=2 (proc(5)), the processes of other users look
    as if they did not exist, and only the signal that is not sent tells that they do (kill(2): EPERM).
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    found = _started(pid)
    if not found or not started:
        return None
    return found == started
