"""Which descriptors this process holds."""

import os
from contextlib import suppress
from pathlib import Path


def open_descriptors() -> list[str]:
    """Their numbers."""
    return [name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")]


def open_below(directory: Path) -> list[str]:
    """What this process has open there. Threads and fixtures of others open and close whatever else they like."""
    found: list[str] = []
    for name in open_descriptors():
        with suppress(FileNotFoundError):  # closed just now, by another thread
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(str(directory))]
