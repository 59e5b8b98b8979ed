"""Paths inside an image's file system, whose links must never lead out of it."""

# Paths of another file system, as text.
# ruff: noqa: PTH115, PTH118

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from praxis_mcp.errors import ImageError

_MAX_LINKS = 40
"""As the kernel's own bound (path_resolution(7))."""


def resolve(root: Path | str, path: str, *, last: bool = True) -> str:
    """Where `path` leads for somebody whose root is `root`: absolute, without links and ``..``, as seen from there.

    What does not exist is taken as it is written.

    Args:
        root: the directory.
        path: absolute or relative to `root`.
        last: whether a link at the very end is followed as well.

    Raises:
        ImageError: it has more links than the kernel would follow.
    """
    base = os.fspath(root)
    waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    found: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            if found:
                found.pop()
            continue
        target = None
        if waiting or last:
            try:
                target = os.readlink(os.path.join(base, *found, part))
            except OSError:  # no link, or nothing
                target = None
        if target is None:
            found.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise ImageError(f"The image's links go round in circles at {path[:200]}.")
        if target.startswith("/"):
            found = []
        waiting += [piece for piece in reversed(target.split("/")) if piece not in ("", ".")]
    return "/" + "/".join(found)


def open_directory(root: Path | str, path: str) -> int | None:
    """A descriptor of a directory of the image, no link followed on the way; None where there is no such directory.

    Args:
        root: the directory that the image is unpacked to.
        path: absolute, as seen from there, without ``..``.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    found = os.open(root, flags)
    for part in path.split("/"):
        if part:
            above = found
            try:
                found = os.open(part, flags, dir_fd=above)
            except OSError as exc:
                if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    return None
                raise
            finally:
                os.close(above)
    return found


def is_directory(place: str) -> bool:
    """Whether it is a directory itself, not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(place).st_mode)
    except OSError:
        return False


def below(root: Path | str, path: str) -> str:
    """The place outside of what `resolve` has found."""
    return os.fspath(root).rstrip("/") + path if path != "/" else os.fspath(root)
