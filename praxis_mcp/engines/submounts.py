"""File systems that this machine has mounted below a directory."""

from __future__ import annotations

import re
from pathlib import Path

from praxis_mcp.errors import ExecutionError

MAX_SUBMOUNTS = 64
"""File systems below one mount; each is mounted singly."""

_TABLE = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def submounts(source: Path) -> list[str]:
    """Where file systems are mounted below `source`, sorted; nothing where the machine has no such table.

    Args:
        source: absolute, links resolved.

    Raises:
        ExecutionError: there are more than `MAX_SUBMOUNTS`.
    """
    try:
        table = _TABLE.read_text(errors="surrogateescape")
    except OSError:
        return []
    prefix = str(source).rstrip("/") + "/"
    # proc_pid_mountinfo(5): the fifth field, spaces and the like in octal.
    places = (_ESCAPE.sub(lambda found: chr(int(found[1], 8)), line.split(" ")[4]) for line in table.splitlines())
    found = sorted({place for place in places if place.startswith(prefix) and place != prefix})
    if len(found) > MAX_SUBMOUNTS:
        raise ExecutionError(
            f"{source} has {len(found)} file systems mounted below it, too many to mount them all.",
            remedy="Mount those of its directories that the tool needs.",
        )
    return found
