"""Files and directories that several processes share: locked, replaced at once. All of it blocks.

The directories that are kept between calls (`cache_dirs`), a bounded number of them, are each held by their users (a
shared flock(2) on the directory itself), so that none is removed under a call. The time of change of one is that of its
last use.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from praxis_mcp.support.files import Stamp, stamp_of
from praxis_mcp.support.removal import remove_tree

_LOCK_RETRY_INTERVAL = 0.05


MAX_CACHE_DIRECTORIES = 256
"""Directories kept; of more, those go that were not used for longest."""
CACHE_MAX_AGE = 90 * 24 * 3600.0
"""Seconds without use after which one goes: its contract, project or image is another one by now."""


@contextmanager
def hold_lock(
    path: Path, *, shared: bool = False, timeout: float = 0.0, is_stopped: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Hold a lock file (flock(2): the kernel lets go for a process that is killed); whether the lock was free.

    Lock files are never removed: another process may be about to lock the one that it has opened. In a directory that
    cannot be written, such as an image store that is mounted read-only, a shared lock is as good without its file:
    nobody removes anything there.

    Args:
        path: the file; made where it is missing.
        shared: others may hold it shared as well.
        timeout: seconds to wait for it.
        is_stopped: asked while waiting; True gives up.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if not shared or exc.errno not in (errno.EROFS, errno.EACCES):
            raise
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            yield True
            return
    try:
        deadline = time.monotonic() + timeout
        while not (held := _flock(descriptor, shared=shared)):
            if time.monotonic() >= deadline or is_stopped():
                break
            time.sleep(_LOCK_RETRY_INTERVAL)
        yield held
    finally:
        os.close(descriptor)


def _flock(descriptor: int, *, shared: bool) -> bool:
    import fcntl  # Windows has none, and imports this module all the same

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def entries(directory: Path) -> list[Path]:
    """What is in a directory, sorted; nothing where there is none."""
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


class JsonFiles:
    """What JSON files hold; each is read again only when it was replaced."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Stamp, Any]] = {}

    def read(self, file: Path) -> Any:
        """A file's content; None where there is none."""
        stamp = stamp_of(file)
        if stamp is None:
            self._known.pop(file, None)
            return None
        known = self._known.get(file)
        if known is None or known[0] != stamp:
            try:
                known = (stamp, json.loads(file.read_bytes()))
            except (OSError, ValueError):  # removed just now
                return None
            self._known[file] = known
        return known[1]


@contextmanager
def hold_cache(directory: Path, key: str, trash: Path) -> Iterator[Path]:
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
            descriptor = _lock_directory(place, shared=True)
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
        if (too_many or used < time.time() - CACHE_MAX_AGE) and _remove_cache(place, trash):
            removed.append(place.name)
    return tuple(removed)


def _remove_cache(place: Path, trash: Path) -> bool:
    """Whether it could be removed: nobody holds it."""
    try:
        descriptor = _lock_directory(place, shared=False)
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


def _lock_directory(place: Path, *, shared: bool) -> int | None:
    """A descriptor of the directory with a lock on it; None where another's lock is in the way.

    Raises:
        OSError: it is gone, or cannot be opened.
    """
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        is_locked = _flock(descriptor, shared=shared)
        if is_locked and not os.path.samestat(os.fstat(descriptor), place.lstat()):
            raise FileNotFoundError(place)
    except BaseException:
        os.close(descriptor)
        raise
    if not is_locked:
        os.close(descriptor)
        return None
    return descriptor
