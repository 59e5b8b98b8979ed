"""Private directories for what a call needs on this machine, which no killed server leaves behind for good.

Anyone who makes one holds a lock on it. The kernel lets go of it with the process, whatever ended that, so that a
directory without a holder is nobody's; process ids, which come again and differ between namespaces, are not needed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from praxis_mcp.support.logs import logger
from praxis_mcp.support.removal import remove_tree

try:
    import fcntl
except ImportError:  # Windows: a killed server's directories stay in its temporary directory
    fcntl = None

PREFIX = "praxis-mcp-scratch-"
CAN_HOLD = fcntl is not None
"""Whether others can see here that a directory has a holder."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """A private directory (0700), until `remove`. All of this blocks, if only shortly."""

    path: Path
    _lock: int

    @classmethod
    def make(cls, prefix: str = PREFIX) -> Scratch:
        """A new one.

        Raises:
            OSError: the temporary directory is full, or closed to this user.
        """
        while True:
            path = Path(tempfile.mkdtemp(prefix=prefix))
            if fcntl is None:
                return cls(path, -1)
            lock = -1
            try:
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(lock, fcntl.LOCK_EX)
                if os.path.samestat(path.stat(), os.fstat(lock)):
                    return cls(path, lock)
            except FileNotFoundError:
                pass
            # A server that was sweeping met it before it was locked.
            if lock >= 0:
                os.close(lock)

    def remove(self) -> None:
        """Remove it with all that is in it; what another user's tool has closed to this one stays, with a warning."""
        remove_directory(self.path)
        self.release()

    def release(self) -> None:
        """Let go of it, whether it is there or not."""
        if self._lock >= 0:
            os.close(self._lock)


def remove_directory(directory: Path) -> None:
    """Remove a directory of this user's with all that is in it, whatever modes a tool gave it; what cannot be removed
    is logged."""
    failure = remove_tree(directory)
    if failure is not None:
        logger.warning("{} cannot be removed: {}", directory, failure)


def sweep_scratch(prefix: str = PREFIX, remove: Callable[[Path], None] = remove_directory) -> int:
    """Remove the directories of this user's servers that were killed; how many."""
    if fcntl is None:
        return 0
    removed = 0
    for path in Path(tempfile.gettempdir()).glob(prefix + "*"):
        lock = _open_own(path)
        if lock is None:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its owner lives
            continue
        else:
            remove(path)
            removed += 1
        finally:
            os.close(lock)
    return removed


def is_held(path: Path) -> bool:
    """Whether that is a directory of this user's whose maker lives. Blocks, if only shortly."""
    lock = _open_own(path) if fcntl is not None else None
    if fcntl is None or lock is None:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _open_own(path: Path) -> int | None:
    try:
        if path.lstat().st_uid == os.getuid():
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # removed just now, or no directory
        pass
    return None
