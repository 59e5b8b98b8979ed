"""Paths inside an image's file system, whose links must never lead out of it."""

# Paths of another file system, as text.
# ruff: noqa: PTH115

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from praxis_mcp.errors import ImageError
from praxis_mcp.support.rooted import CHANGED, HeldDirectory, descend

_MAX_LINKS = 40
"""As the kernel's own bound (path_resolution(7))."""
_MAX_STEPS = 4096
"""Names on the way, those of the links' targets counted: 40 links of 4,095 bytes have 82,000."""


def resolve(root: Path | str, path: str, *, last: bool = True) -> str:
    """Where `path` leads for somebody whose root is `root`: absolute, without links and ``..``, as seen from there.

    What does not exist is taken as it is written.

    Args:
        root: the directory.
        path: absolute or relative to `root`.
        last: whether a link at the very end is followed as well.

    Raises:
        ImageError: it has more links than the kernel would follow, or they lead too far around.
    """
    waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    base = os.fspath(root).rstrip("/")
    found = [base]  # each place on the way, whole: to put them together again at each step would be quadratic
    links = steps = 0
    while waiting:
        part = waiting.pop()
        steps += 1
        if steps > _MAX_STEPS:
            raise ImageError(f"The image's links lead through more than {_MAX_STEPS} directories at {path[:200]!r}.")
        if part == "..":
            if len(found) > 1:
                found.pop()
            continue
        place, target = f"{found[-1]}/{part}", None
        if waiting or last:
            try:
                target = os.readlink(place)
            except OSError:  # not a link, or nothing
                target = None
        if target is None:
            found.append(place)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise ImageError(f"The image's links go round in circles at {path[:200]}.")
        if target.startswith("/"):
            found = [base]
        waiting += [piece for piece in reversed(target.split("/")) if piece not in ("", ".")]
    return found[-1].removeprefix(base) or "/"


def open_top(root: Path | str) -> HeldDirectory:
    """The directory that an image is unpacked to, which is not a link itself.

    Raises:
        OSError: there is none, or it is a link.
    """
    parent, name = os.path.split(os.path.abspath(root))  # noqa: PTH100
    with HeldDirectory.at(parent, links=True, listed=False) as outside:
        return outside.enter(name or ".")


def open_file(root: Path | str, path: str) -> BinaryIO | None:
    """A file of the image to read, its links followed as they would be inside, and none that is put there meanwhile;
    None where there is no such file, or something else than a file.

    Args:
        root: the directory that holds it all.
        path: as seen from there.
    """
    try:
        parent, _, name = resolve(root, path).rpartition("/")
    except ImageError:  # links in a circle
        return None
    try:
        with open_top(root) as top, descend(top, parent) as directory:
            return os.fdopen(directory.read(name), "rb")
    except OSError as exc:
        if exc.errno in (*CHANGED, errno.ENXIO, errno.EINVAL):  # the last two: something else than a file
            return None
        raise


def is_directory(place: str) -> bool:
    """Whether it is a directory itself, not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(place).st_mode)
    except OSError:
        return False


def below(root: Path | str, path: str) -> str:
    """The place outside of what `resolve` has found."""
    return os.fspath(root).rstrip("/") + path if path != "/" else os.fspath(root)


def above(path: str) -> Iterator[str]:
    """The directories that an absolute path is in, the nearest first, without ``/``."""
    while path := path.rpartition("/")[0]:
        yield path
