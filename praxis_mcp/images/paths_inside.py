"""Paths inside an image's file system, whose links must never lead out of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from praxis_mcp.errors import ImageError
from praxis_mcp.support.files import follow_links, link_target
from praxis_mcp.support.rooted import CHANGED, HeldDirectory, descend


def resolve(root: Path | str, path: str) -> str:
    """Where `path` leads for somebody whose root is `root`: absolute, without links and ``..``, as seen from there.

    What does not exist is taken as it is written.

    Args:
        root: the directory.
        path: absolute or relative to `root`.

    Raises:
        ImageError: it has more links than the kernel would follow, or they lead too far around.
    """
    base = os.fspath(root).rstrip("/")
    try:
        return follow_links(path, lambda place: link_target(base + place))
    except OSError as exc:
        raise ImageError(f"The image's links go round in circles, or a long way around, at {path[:200]!r}.") from exc


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
