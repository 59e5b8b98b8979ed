"""The home directory, which not every user has: a service's or a container's may lack HOME and an entry in passwd."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path | None:
    """The user's home directory; None where there is none."""
    if os.environ.get("HOME") == "":  # which Python reads as the root
        return None
    try:
        path = Path.home()
    except RuntimeError:
        return None
    return path if path.is_absolute() else None


def expand(path: Path) -> Path:
    """A path with ``~`` replaced.

    Raises:
        ValueError: there is no such home directory.
    """
    try:
        return path.expanduser()
    except RuntimeError as exc:
        raise ValueError(f"{path} begins at a home directory, and there is none; write an absolute path") from exc
