"""Paths of the host, opened so that no link is followed on the way: what a descriptor holds stays what was judged,
whatever happens to the path afterwards."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from functools import cache
from typing import Any

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Mount

_OPENAT2 = 437
"""The number of openat2(2), Linux 5.6, on every architecture."""
_NO_LINKS = 0x02 | 0x04
"""RESOLVE_NO_MAGICLINKS and RESOLVE_NO_SYMLINKS (linux/openat2.h)."""
_PATH: int = getattr(os, "O_PATH", 0)
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)

CHANGED = (errno.ELOOP, errno.ENOENT, errno.ENOTDIR)
"""What `open_path` fails with where a path without links has been changed since."""

Identity = tuple[int, int]
"""Device and inode."""


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_path(path: str) -> int:
    """A descriptor (O_PATH) of what lies at an absolute path without ``..``, no link followed anywhere in it. Linux
    only.

    Raises:
        OSError: ELOOP or ENOTDIR where a link is on the way; or it is not there, or may not be looked at.
    """
    if (call := _openat2()) is not None:
        how = _How(_PATH | os.O_CLOEXEC, 0, _NO_LINKS)
        found = call(_OPENAT2, -100, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        number = ctypes.get_errno()
        if found >= 0:
            return int(found)
        if number not in (errno.ENOSYS, errno.EPERM, errno.E2BIG):  # an older kernel, or a container's filter
            raise OSError(number, os.strerror(number), path)
    return _open_singly(path)


def _open_singly(path: str) -> int:
    """The same, one name after the other."""
    held = os.open("/", _PATH | _DIRECTORY | os.O_CLOEXEC)
    names = [name for name in path.split("/") if name] or ["."]
    for number, name in enumerate(names):
        step = _PATH if number + 1 == len(names) else _PATH | _DIRECTORY
        above = held
        try:
            held = os.open(name, step | _NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        finally:
            os.close(above)
    if stat.S_ISLNK(os.fstat(held).st_mode):
        os.close(held)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return held


def identity_of(found: int | os.stat_result) -> Identity:
    """Which file or directory it is, by a descriptor or its status: what tells it from another at the same path."""
    status = os.fstat(found) if isinstance(found, int) else found
    return status.st_dev, status.st_ino


@cache
def _openat2() -> Any:
    if sys.platform != "linux":
        return None
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_How), ctypes.c_size_t)
    return call


def open_mount(mount: Mount) -> int:
    """A descriptor of a mount's source, which is what was judged.

    Raises:
        ExecutionError: it is something else by now.
    """
    try:
        held = open_path(str(mount.source))
    except OSError as exc:
        if exc.errno in CHANGED:
            raise replaced(mount) from exc
        raise ExecutionError(f"{mount.source}, which is mounted, cannot be opened: {exc.strerror}.") from exc
    if mount.identity not in (None, identity_of(held)):
        os.close(held)
        raise replaced(mount)
    return held


def replaced(mount: Mount) -> ExecutionError:
    """What lies at a mount's source is not what was judged."""
    return ExecutionError(
        f"{mount.source}, which is mounted at {mount.target}, was replaced after it had been checked.",
        remedy="Call again. If it persists, another program, or a tool with a writable mount around it, changes it.",
    )
