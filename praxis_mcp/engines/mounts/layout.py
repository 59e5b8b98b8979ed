"""The file system of a sandbox, step by step: what is where, later ones on top.

praxis-init and bubblewrap are given the same steps.

Room for a mount whose place does not exist in a tree that cannot be written is made by a fresh directory that holds the
same entries, each mounted singly. It goes right above what it opens, below all that has been laid into that: making
room for one mount covers no other.
"""

# Paths of two file systems, as text: one of them is not this process's.
# ruff: noqa: PTH112, PTH115, PTH118

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from enum import Enum

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import CallFile, Mount
from praxis_mcp.plans.paths import open_mount
from praxis_mcp.plans.view import Gap, Layer, View, is_below
from praxis_mcp.support.rooted import CHANGED, open_path

MAX_SIBLINGS = 256
"""Entries of a directory in which room can be made."""


class StepKind(Enum):
    """What a step of laying out a sandbox does."""

    ROOT = "the root, read-only"
    OVERLAY = "the root, under a layer of the call's own in memory"
    MEMORY_ROOT = "the root, an empty directory in memory"
    BIND = "a file or directory of the host"
    MEMORY = "an empty directory in memory"
    PROC = "a /proc of the sandbox's own"
    DEVICES = "a /dev of the sandbox's own"
    LINK = "a symbolic link"
    DIRECTORY = "a directory, where there is none"
    CONTENT = "a read-only file with a content"
    NOTHING = "nothing where the host has a file"
    LOCK = "what is mounted there cannot be written any more"


@dataclass(frozen=True, slots=True)
class Step:
    """One step; what a kind has no use for stays as it is here.

    Attributes:
        kind: what is done.
        path: where, for the tool; without links.
        source: on the host: what is mounted.
        held: a descriptor of that, or of a content; None: the source is found by its path.
        target: of a link; of an overlay, where bubblewrap finds it made.
        writable: whether a bind can be written.
        is_optional: whether a source that is gone is left out.
        size: bytes of what is kept in memory; None: a little, for mounts.
        mode: permission bits of what is kept in memory.
    """

    kind: StepKind
    path: str
    source: str | None = None
    held: int | None = None
    target: str | None = None
    writable: bool = False
    is_optional: bool = False
    size: int | None = None
    mode: int = 0o755


@dataclass(slots=True)
class _Laid(Layer):
    """A layer, and the steps that make it."""

    steps: list[Step] = field(default_factory=list)


class MountLayout:
    """Builds the file system of one sandbox. Opens descriptors: close them once the sandbox has been started.

    Args:
        by_descriptor: whether what a descriptor holds can be mounted (`Bubblewrap.binds_descriptors`).

    Attributes:
        descriptors: what the process that makes the sandbox must inherit.
    """

    def __init__(self, *, by_descriptor: bool) -> None:
        self.descriptors: list[int] = []
        self._by_descriptor = by_descriptor
        # What is at or above a path never comes after what is below it, unless it is to cover it.
        self._view: View[_Laid] = View()
        self._opened: list[str] = []
        self._directories: list[str] = []

    @property
    def steps(self) -> list[Step]:
        """All steps; what was laid to make room cannot be written."""
        found = [step for layer in self._view.layers for step in layer.steps]
        found += [Step(StepKind.DIRECTORY, path) for path in self._directories]
        for path in self._opened:
            number = self._view.provider(path)
            top = None if number is None else self._view.layers[number]
            if top is not None and (top.path, top.source) == (path, None):  # a mount of the contract may cover it
                found.append(Step(StepKind.LOCK, path))
        return found

    @property
    def growing(self) -> frozenset[str]:
        """The paths of steps whose places may be made where they are missing: those in memory, or in what is the
        server's own."""
        found: set[str] = set()
        for number, layer in enumerate(self._view.layers):
            below = (other for other in reversed(self._view.layers[:number]) if is_below(layer.path, [other.path]))
            if (provider := next(below, None)) is not None and (provider.source is None or provider.grows):
                found.add(layer.path)
        return frozenset(found)

    def close(self) -> None:
        """Close the descriptors."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def root(self, source: str) -> None:
        """`source` as the root, read-only."""
        self._lay("/", source, Step(StepKind.ROOT, "/", source))

    def overlay(self, place: str, source: str, size: int) -> None:
        """`source` as the root, under a layer of the call's own, of `size` bytes; `place` is where bubblewrap finds
        that."""
        step = Step(StepKind.OVERLAY, "/", source, target=place, size=size)
        self._add(_Laid("/", source, grows=True, steps=[step]))

    def system(self) -> None:
        """A /proc and /dev of the sandbox's own, on top of the root."""
        self._lay("/proc", None, Step(StepKind.PROC, "/proc"))
        self._lay("/dev", None, Step(StepKind.DEVICES, "/dev"))

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
        # What the descriptor holds: a path could come to lead elsewhere at any time.
        source, writable = str(mount.source), mount.writable
        step = Step(StepKind.BIND, target, source, held if self._by_descriptor else None, writable=writable)
        self._add(_Laid(target, source, writable, grows, [step]))

    def bind(self, source: str, target: str) -> None:
        """A path of the host, mounted read-only at a path without links."""
        self._lay(target, source, Step(StepKind.BIND, target, source))

    def _hold(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return descriptor

    def empty(self, path: str, *, size: int | None = None, mode: int = 0o755) -> None:
        """A fresh directory in memory.

        Args:
            path: where.
            size: bytes that it may hold; None: it is only mounted on.
            mode: its permission bits.
        """
        self._lay(path, None, Step(StepKind.MEMORY, path, size=size, mode=mode))

    def add_directory(self, path: str) -> None:
        """A directory in what can be written."""
        self._lay(path, None, Step(StepKind.DIRECTORY, path))

    def add_link(self, path: str, target: str) -> None:
        """A symbolic link in what can be written."""
        self._lay(path, None, Step(StepKind.LINK, path, target=target))

    def hide(self, path: str) -> None:
        """Nothing where the host has something, and nothing to be written there."""
        origin = self._view.origin(path)
        if origin is None:
            return
        if os.path.isdir(origin):
            self.empty(path)
            self._opened.append(path)
        elif os.path.exists(origin):  # noqa: PTH110
            self._lay(path, None, Step(StepKind.NOTHING, path))

    def put(self, file: CallFile) -> None:
        """A file of the call, read-only; room is made for it.

        Raises:
            ExecutionError: it has no place.
        """
        path = self.resolve(file.path)
        self.make_room(path, is_directory=False)
        descriptor = self._hold(os.memfd_create("praxis-file"))
        with os.fdopen(os.dup(descriptor), "wb") as copy:
            copy.write(file.content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        self._lay(path, None, Step(StepKind.CONTENT, path, held=descriptor))

    def directory(self, path: str) -> None:
        """See to it that there is a directory at a path without links.

        Raises:
            ExecutionError: it has no place.
        """
        self.make_room(path, is_directory=True)
        origin = self._view.origin(path)
        if path != "/" and (origin is None or not os.path.lexists(origin)):
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
        kind = StepKind.MEMORY
        if gap.path == "/":
            kind = StepKind.MEMORY_ROOT
            self._view.layers[gap.number].steps.clear()
        opened = [_Laid(gap.path, None, steps=[Step(kind, gap.path)])]
        self._opened.append(gap.path)
        for entry in entries_of(gap):
            name = os.path.join(gap.path, entry.name)
            if name in ("/proc", "/dev"):
                continue
            if entry.is_symlink():
                step = Step(StepKind.LINK, name, target=os.readlink(entry.path))
            elif gap.path == "/" or not self._by_descriptor:
                step = Step(StepKind.BIND, name, entry.path, is_optional=True)
            else:
                held = open_entry(entry)
                if held is None:
                    continue
                step = Step(StepKind.BIND, name, entry.path, self._hold(held))
            opened.append(_Laid(name, entry.path, steps=[step]))
        self._view.layers[gap.number + 1 : gap.number + 1] = opened

    def _lay(self, path: str, source: str | None, step: Step) -> None:
        self._add(_Laid(path, source, steps=[step]))

    def _add(self, layer: _Laid) -> None:
        self._view.layers.append(layer)


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
