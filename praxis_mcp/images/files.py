"""Files that several processes share: locked, replaced at once. All of it blocks."""

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

_LOCK_RETRY_INTERVAL = 0.05


@contextmanager
def locked(
    path: Path, *, shared: bool = False, timeout: float = 0.0, is_stopped: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Hold a lock file (flock(2): the kernel lets go for a process that is killed); whether it could be had.

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
        self._known: dict[Path, tuple[int, Any]] = {}

    def read(self, file: Path) -> Any:
        """A file's content; None where there is none."""
        try:
            stamp = file.stat()
        except OSError:
            self._known.pop(file, None)
            return None
        version = hash((stamp.st_mtime_ns, stamp.st_ino, stamp.st_size))
        known = self._known.get(file)
        if known is None or known[0] != version:
            try:
                known = (version, json.loads(file.read_bytes()))
            except (OSError, ValueError):  # removed just now
                return None
            self._known[file] = known
        return known[1]


def write_json(file: Path, record: object) -> None:
    """Replace a file at once: anyone who reads it sees the old one or the new one."""
    descriptor, name = tempfile.mkstemp(prefix=".", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(record, out)
            out.flush()
            os.fsync(descriptor)
        Path(name).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
