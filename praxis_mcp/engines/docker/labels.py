"""Labels on containers: whose they are, until when they may live, and which of them nobody owns any more."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from praxis_mcp.plans.model import Blueprint
from praxis_mcp.support.owners import is_alive, start_of, this_machine

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

ORPHAN_GRACE = 300.0
"""Seconds past its deadline after which a container of a server that cannot be looked up (another machine's, another
pid namespace's) is nobody's: long enough for clocks that differ."""


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
        return cls(uuid.uuid4().hex, pid, start_of(pid), this_machine())

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
        alive = is_alive(int(labels[PID]), labels.get(STARTED, ""))
        if alive is not None:
            return not alive
    deadline = labels.get(DEADLINE, "")
    return deadline.isdecimal() and int(deadline) + ORPHAN_GRACE < (time.time() if now is None else now)
