"""Whether a file that the settings name is another one than when it was read, or holds something else."""

from __future__ import annotations

from pathlib import Path

STAMP_CHECK_INTERVAL = 2.0
"""Seconds between two looks at such a file."""

Stamp = tuple[int, int, int] | None
"""Changes when the file is written, or another takes its place; None while there is none."""


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file as it is now; links are followed. Blocks, if only shortly."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
