"""Directories that are kept between calls (`cache_dirs`), a bounded number of them. All of it blocks.

Each is held by its users (a shared flock(2) on the directory itself), so that none is removed under a call. Its
time of change is that of its last use.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from praxis_mcp.images.files import entries
from praxis_mcp.support.removal import remove_tree

MAX_CACHE_DIRECTORIES = 256
"""Directories kept; of more, those go that were not used for longest."""
CACHE_MAX_AGE = 90 * 24 * 3600.0
"""Seconds without use after which one goes: its contract, project or image is another one by now."""


@contextmanager
def held_cache(directory: Path, key: str, trash: Path) -> Iterator[Path]:
    """The directory that is kept for a key, made where it is missing, and held.

    Args:
        directory: where they all are.
        key: a file name.
        trash: an existing directory on the same file system, where what is to be removed goes first.

    Raises:
        OSError: it cannot be made.
    """
    place = directory / key
    if not place.is_dir():
        prune_caches(directory, trash, room=1)
    while True:
        place.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = _locked(place, shared=True)
        except FileNotFoundError:
            continue  # removed just now
        if descriptor is not None:
            break
        time.sleep(0.01)  # being removed: renamed in a moment
    try:
        with suppress(OSError):  # a store that cannot be written
            os.utime(descriptor)
        yield place
    finally:
        os.close(descriptor)


def prune_caches(directory: Path, trash: Path, *, room: int = 0) -> tuple[str, ...]:
    """Remove those that were not used for long, and the oldest above the bound, unless they are in use; says which.

    Args:
        room: for how many new ones there must be room.
    """
    found: list[tuple[float, Path]] = []
    for place in entries(directory):
        with suppress(FileNotFoundError):
            found.append((place.stat().st_mtime, place))
    found.sort()
    removed: list[str] = []
    for used, place in found:
        too_many = len(found) - len(removed) > MAX_CACHE_DIRECTORIES - room
        if (too_many or used < time.time() - CACHE_MAX_AGE) and _remove(place, trash):
            removed.append(place.name)
    return tuple(removed)


def _remove(place: Path, trash: Path) -> bool:
    """Whether it could be removed: nobody holds it."""
    try:
        descriptor = _locked(place, shared=False)
    except OSError:
        return False
    if descriptor is None:
        return False
    try:
        gone = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=trash))
        place.rename(gone / "cache")  # out of sight at once: nobody finds half of it
    except OSError:
        return False
    finally:
        os.close(descriptor)
    remove_tree(gone)
    return True


def _locked(place: Path, *, shared: bool) -> int | None:
    """A descriptor of the directory with a lock on it; None where another's lock is in the way.

    Raises:
        OSError: it is gone, or cannot be opened.
    """
    import fcntl  # Windows has none, and imports this module all the same

    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(place, follow_symlinks=False)):  # noqa: PTH116
            return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    raise FileNotFoundError(place)
