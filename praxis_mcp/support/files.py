"""Small files that people or other processes change meanwhile: whether one has changed, and replacing one as a whole.

Everything here blocks, if only for a moment.
"""

from __future__ import annotations

from pathlib import Path

STAMP_CHECK_INTERVAL = 2.0
"""Seconds between two looks at a file that is read again when it changes."""

Stamp = tuple[int, int, int] | None
"""Changes when the file is written, or another takes its place; None while there is none."""


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file as it is now; links are followed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def replace_text(file: Path, text: str) -> None:
    """Write a file so that a reader sees either the old text or the new, never a part of it.

    Raises:
        OSError: it cannot be written.
    """
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
