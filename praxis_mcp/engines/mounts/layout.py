"""The file system of a sandbox, as options for bubblewrap: what is where, later ones on top.

Room for a mount whose place does not exist in a tree that cannot be written is made by a fresh directory that holds the
same entries, each mounted singly. It goes right above what it opens, below all that has been laid into that: making
room for one mount covers no other.
"""

# Paths of two file systems, as text: one of them is not this process's.
# ruff: noqa: PTH112, PTH115, PTH118

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import CallFile, Mount
from praxis_mcp.plans.paths import open_mount
from praxis_mcp.plans.view import Gap, Layer, View
from praxis_mcp.support.rooted import CHANGED, open_path

MAX_SIBLINGS = 256
"""Entries of a directory in which room can be made."""


@dataclass(slots=True)
class _Options(Layer):
    """A layer, and bubblewrap's options for it."""

    words: list[str] = field(default_factory=list)


class MountLayout:
    """Builds the file system options of one sandbox. Opens descriptors: close them once bubblewrap has started.

    Args:
        by_descriptor: whether bubblewrap mounts what a descriptor holds (`Bubblewrap.binds_descriptors`).

    Attributes:
        descriptors: what bubblewrap must inherit.
    """

    def __init__(self, *, by_descriptor: bool) -> None:
        self.descriptors: list[int] = []
        self._by_descriptor = by_descriptor
        # What is at or above a path never comes after what is below it, unless it is to cover it.
        self._view: View[_Options] = View()
        self._opened: list[str] = []
        self._directories: list[str] = []

    @property
    def words(self) -> list[str]:
        """The options; what was laid to make room cannot be written."""
        found = [word for layer in self._view.layers for word in layer.words]
        for path in self._directories:
            found += ["--dir", path]
        for path in self._opened:
            number = self._view.provider(path)
            top = None if number is None else self._view.layers[number]
            if top is not None and (top.path, top.source) == (path, None):  # a mount of the contract may cover it
                found += ["--remount-ro", path]
        return found

    def close(self) -> None:
        """Close the descriptors."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def root(self, source: str) -> None:
        """`source` as the root, read-only."""
        self._add(_Options("/", source, words=["--ro-bind", source, "/"]))

    def overlay(self, place: str, source: str) -> None:
        """`place` as the root, which shows `source` under a layer of the call's own."""
        self._add(_Options("/", source, grows=True, words=["--bind", place, "/"]))

    def lay(self, mount: Mount, *, grows: bool = False) -> None:
        """A mount, where the links of what is there already lead; room is made for it.

        Args:
            mount: the mount.
            grows: whether its source is the server's own, so that what is missing in it may be made there.

        Raises:
            ExecutionError: it has no place.
        """
        held = self._hold(open_mount(mount))
        target = self.resolve(mount.target)
        self.make_room(target, is_directory=stat.S_ISDIR(os.fstat(held).st_mode))
        self._bind_held(held, str(mount.source), target, writable=mount.writable, grows=grows)

    def bind(self, source: str, target: str, *, writable: bool = False, grows: bool = False) -> None:
        """A path of the host, mounted at a path without links."""
        words = ["--bind" if writable else "--ro-bind", source, target]
        self._add(_Options(target, source, writable, grows, words))

    def _bind_held(self, held: int, source: str, target: str, *, writable: bool = False, grows: bool = False) -> None:
        """What a descriptor holds, mounted: a path could come to lead elsewhere at any time."""
        if self._by_descriptor:
            words = ["--bind-fd" if writable else "--ro-bind-fd", str(held), target]
        else:
            words = ["--bind" if writable else "--ro-bind", source, target]
        self._add(_Options(target, source, writable, grows, words))

    def _hold(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return descriptor

    def empty(self, path: str, *options: str) -> None:
        """A fresh directory in memory; `options` go before it (``--size``, ``--perms``)."""
        self._add(_Options(path, None, words=[*options, "--tmpfs", path]))

    def add(self, words: Iterable[str], *paths: str) -> None:
        """Options of another kind, and the paths that they make, which the host lacks."""
        self._add(*(_Options(path, None) for path in paths))
        self._view.layers[-1].words += words

    def hide(self, path: str) -> None:
        """Nothing where the host has something, and nothing to be written there."""
        origin = self._view.origin(path)
        if origin is None:
            return
        if os.path.isdir(origin):
            self.empty(path)
            self._opened.append(path)
        elif os.path.exists(origin):  # noqa: PTH110
            self._add(_Options(path, None, words=["--ro-bind", "/dev/null", path]))

    def put(self, file: CallFile) -> None:
        """A file of the call, read-only; room is made for it.

        Raises:
            ExecutionError: it has no place.
        """
        path = self.resolve(file.path)
        self.make_room(path, is_directory=False)
        descriptor = os.memfd_create("praxis-file")
        self.descriptors.append(descriptor)
        with os.fdopen(os.dup(descriptor), "wb") as copy:
            copy.write(file.content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        self._add(_Options(path, None, words=["--ro-bind-data", str(descriptor), path]))

    def directory(self, path: str) -> None:
        """See to it that there is a directory at a path without links.

        Raises:
            ExecutionError: it has no place.
        """
        self.make_room(path, is_directory=True)
        origin = self._view.origin(path)
        if origin is None or not os.path.lexists(origin):
            self._directories.append(path)

    def resolve(self, path: str) -> str:
        """See `View.resolve`. Bubblewrap itself would follow an absolute link outside its new root."""
        return self._view.resolve(path)

    def make_room(self, path: str, *, is_directory: bool) -> None:
        """See to it that a directory, or a file, can be mounted at a path without links, which may not exist yet.

        Raises:
            ExecutionError: there can be no such place.
        """
        gap = self._view.find_gap(path, is_directory=is_directory)
        if gap is not None:
            self._open(gap)

    def _open(self, gap: Gap) -> None:
        """Lay a fresh directory over one, with the same entries and room for more.

        Raises:
            ExecutionError: it has too many.
        """
        opened = [_Options(gap.path, None, words=["--tmpfs", gap.path])]
        if gap.path == "/":  # bubblewrap's own root is such a directory already
            self._view.layers[gap.number].words.clear()
            opened[0].words.clear()
        self._opened.append(gap.path)
        for entry in entries_of(gap):
            name = os.path.join(gap.path, entry.name)
            if name in ("/proc", "/dev"):
                continue
            if entry.is_symlink():
                words = ["--symlink", os.readlink(entry.path), name]
            elif gap.path == "/" or not self._by_descriptor:
                words = ["--ro-bind-try", entry.path, name]
            else:
                held = open_entry(entry)
                if held is None:
                    continue
                words = ["--ro-bind-fd", str(self._hold(held)), name]
            opened.append(_Options(name, entry.path, words=words))
        self._view.layers[gap.number + 1 : gap.number + 1] = opened

    def _add(self, *layers: _Options) -> None:
        self._view.layers += layers


def open_entry(entry: os.DirEntry[str]) -> int | None:
    """A descriptor (O_PATH) of a directory's entry; None where it is gone, or a link by now.

    Raises:
        ExecutionError: it cannot be opened. The tool would miss it without a word.
    """
    try:
        return open_path(entry.path)
    except OSError as exc:
        if exc.errno in CHANGED:
            return None
        raise ExecutionError(f"{entry.path}, which is mounted, cannot be opened: {exc.strerror}.") from exc


def entries_of(gap: Gap) -> list[os.DirEntry[str]]:
    """What is in the directory, sorted by name.

    Raises:
        ExecutionError: it is too much to be mounted singly.
    """
    with os.scandir(gap.origin) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    if len(entries) > MAX_SIBLINGS:
        raise ExecutionError(
            f"{gap.path} has more than {MAX_SIBLINGS} entries, too many to make room for another one.",
            remedy=f"Create the place in {gap.origin} on the host, or use one directly below /, such as /work.",
        )
    return entries
