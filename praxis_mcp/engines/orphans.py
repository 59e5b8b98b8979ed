"""Processes on this machine of servers that were killed before they could end them.

What dies with its parent (bubblewrap, praxis-init) has to ask for that first, and a server can be killed in the moment
between: on a busy machine that is several of a hundred. So each carries its owner in its environment.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from loguru import logger

from praxis_mcp.engines.process_tree import send_signal
from praxis_mcp.engines.sandbox_owner import Owner

OWNER_VARIABLE = "PRAXIS_RUN_OF"
"""In the environment of what a server starts for a call: whose it is (`Owner`)."""


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
    # A server that a tool has started is no tool.
    send_signal((pid for pid in found if pid != os.getpid()), signal.SIGKILL)
    if found:
        logger.info("killed {} processes of servers that are gone", len(found))
    return tuple(f"process {pid}" for pid in found)
