"""File systems that this machine has mounted below a directory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from praxis_mcp.errors import ExecutionError

MAX_SUBMOUNTS = 64
"""File systems below one mount; each is mounted singly."""

_TABLE = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def submounts(source: Path) -> list[str]:
    """Where file systems are mounted below `source`, sorted; nothing where the machine has no such table.

    Reads the table alone, and touches none of them: a file server that hangs would hold up the caller.

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
    found = sorted({place for place in _uncovered(table, prefix) if place != prefix})
    if len(found) > MAX_SUBMOUNTS:
        raise ExecutionError(
            f"{source} has {len(found)} file systems mounted below it, too many to mount them all.",
            remedy="Mount those of its directories that the tool needs.",
        )
    return found


def _uncovered(table: str, prefix: str) -> Iterator[str]:
    """Those places below `prefix` to which a path leads. What another file system was mounted over stays in the table,
    and in a directory that has gone with it the daemon would look in vain."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in filter(None, table.split("\n")):
        # proc_pid_mountinfo(5): mount, parent, device, root, mount point, with spaces and the like in octal.
        number, parent, _, _, place = line.split(" ")[:5]
        mounts[number] = (parent, _ESCAPE.sub(lambda found: chr(int(found[1], 8)), place))
    # The first of all is its own parent.
    attached = {mount for number, mount in mounts.items() if mount[0] != number}

    def is_covered(number: str) -> bool:
        while number in mounts:
            parent, place = mounts[number]
            if any((parent, str(above)) in attached for above in PurePosixPath(place).parents):
                return True
            if parent == number:
                return False
            number = parent
        return False

    for number, (_, place) in mounts.items():
        if place.startswith(prefix) and not is_covered(number):
            yield place
