"""Processes on this machine of servers that were killed before they could end them.

What dies with its parent (bubblewrap, praxis-init) has to ask for that first, and a server can be killed in the moment
between: on a busy machine that is several of a hundred. So each carries its owner in its environment.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from praxis_mcp.support.logs import logger
from praxis_mcp.support.owners import Owner
from praxis_mcp.support.processes import send_signal

OWNER_VARIABLE = "PRAXIS_RUN_OF"
"""In the environment of what a server starts for a call: whose it is (`Owner`)."""


SUPERVISOR_TIMEOUT = 15.0
"""Seconds that praxis-init may take to end its tree, from the first look that found it; it gives up after 7 itself."""

_asked_to_end: dict[int, float] = {}


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
    """Which of them have been asked to end, and had time enough."""
    now = time.monotonic()
    for pid in [pid for pid in list(_asked_to_end) if pid not in supervisors]:
        _asked_to_end.pop(pid, None)  # engines look at the same time, in threads
    return {pid for pid in supervisors if now - _asked_to_end.setdefault(pid, now) > SUPERVISOR_TIMEOUT}


def _is_supervisor(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.startswith("praxis-init-")
    except OSError:
        return False
