"""The file system of a sandbox: what is where, later ones on top, as whatever launches the sandbox is given it.

Room for a mount whose place does not exist in a tree that cannot be written is made by a fresh directory that holds the
same entries, each mounted singly. It goes right above what it opens, below all that has been laid into that: making
room for one mount covers no other.
"""

# Paths of two file systems, as text: one of them is not this process's.
# ruff: noqa: PTH112, PTH115, PTH118

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import CallFile, Mount
from praxis_mcp.plans.paths import open_mount
from praxis_mcp.plans.view import Gap, Layer, View, is_below
from praxis_mcp.support.rooted import CHANGED, Identity, identity_of, open_path

MAX_SIBLINGS = 256
"""Entries of a directory in which room can be made."""
SHARED_MEMORY = 64 * 1024 * 1024
"""Bytes of a sandbox's /dev/shm, as on Docker."""
FOR_MOUNTS = 1024 * 1024
"""Bytes of a directory in memory that only holds what is mounted in it."""


class StepKind(Enum):
    """What a step of a layout lays."""

    ROOT = auto()
    """`source` as the root, with all that is mounted below it, read-only."""
    LAYERED_ROOT = auto()
    """`source` as the root, under a layer in memory of `size` bytes that can be written."""
    EMPTY_ROOT = auto()
    """A fresh directory in memory as the root."""
    BIND = auto()
    """What the `descriptor` holds, or, where there is none, `source`, with all that is mounted below it."""
    EMPTY = auto()
    """A fresh directory in memory, of `size` bytes (0: as the system has it)."""
    PROC = auto()
    DEV = auto()
    """A /proc and a /dev of the sandbox's own; `size`: bytes of /dev/shm."""
    LINK = auto()
    """A symbolic link with the text `source`."""
    DIRECTORY = auto()
    """A directory, unless there is one."""
    CONTENT = auto()
    """A read-only file with the content of the `descriptor`; an empty one where there is none."""
    FREEZE = auto()
    """What is mounted there, without what is below it, becomes read-only."""


_OF_THE_HOST = frozenset({StepKind.ROOT, StepKind.LAYERED_ROOT, StepKind.BIND})


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is laid, at a path without links.

    Attributes:
        kind: what; see `StepKind`.
        path: where, for the tool.
        source: on the host.
        descriptor: what was judged: a path could come to lead elsewhere at any time.
        writable: whether a bind can be written.
        optional: whether a source that is gone by now is left out.
        makes_place: whether a place that is missing may be made there: it is in memory, or the server's own.
        mode: permission bits of what is made.
        size: bytes that it may hold.
    """

    kind: StepKind
    path: str
    source: str | None = None
    descriptor: int | None = None
    writable: bool = False
    optional: bool = False
    makes_place: bool = False
    mode: int = 0o755
    size: int = 0


@dataclass(slots=True)
class _Laid(Layer):
    """A layer, and the steps that lay it."""

    steps: list[Step] = field(default_factory=list)


class MountLayout:
    """Lays out the file system of one sandbox. Opens descriptors: close them once the sandbox has started.

    Args:
        is_fixed: whether nobody can change what the root is made of, as with an image: paths in it will do.

    Attributes:
        descriptors: what the launcher must inherit.
    """

    def __init__(self, *, is_fixed: bool = False) -> None:
        self.descriptors: list[int] = []
        self._is_fixed = is_fixed
        # What is at or above a path never comes after what is below it, unless it is to cover it.
        self._view: View[_Laid] = View()
        self._opened: list[str] = []
        self._directories: list[str] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of it; what was laid to make room cannot be written."""
        made: dict[str, tuple[int, bool]] = {}
        found: list[Step] = []
        for number, layer in enumerate(self._view.layers):
            found += [replace(step, makes_place=_makes_places(made, step.path)) for step in layer.steps]
            made[layer.path] = number, layer.source is None or layer.grows
        found += [Step(StepKind.DIRECTORY, path, makes_place=True) for path in self._directories]
        for path in self._opened:
            number = self._view.provider(path)
            top = None if number is None else self._view.layers[number]
            if top is not None and (top.path, top.source) == (path, None):  # a mount of the contract may cover it
                found.append(Step(StepKind.FREEZE, path))
        return tuple(found)

    def state(self, unlike: str | None = None) -> tuple[object, ...]:
        """What is laid where, and which files and directories of the host that is; while the descriptors are open. Two
        layouts with the same state show a tool the same. Looks at files.

        Args:
            unlike: a source on the host that is another one for each call.
        """
        return tuple(
            (step.kind, step.path, step.writable, step.optional, step.makes_place, step.mode, step.size)
            + ((None,) if unlike is not None and step.source == unlike else (step.source, _identity(step)))
            for step in self.steps
        )

    def shows(self, path: str) -> bool:
        """Whether a tool sees what the host has at a path without links."""
        for number, layer in enumerate(self._view.layers):
            source = layer.source
            if source is not None and (path == source or is_below(path, [source])):
                place = os.path.join(layer.path, path[len(source) :].lstrip("/"))
                if self._view.provider(place.rstrip("/") or "/") == number:
                    return True
        return False

    def rests_on(self, path: str) -> bool:
        """Whether anything of the host that a tool sees is in what the host has at a path without links."""
        return any(layer.source is not None and is_below(layer.source, [path]) for layer in self._view.layers)

    def close(self) -> None:
        """Close the descriptors."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def root(self, source: str) -> None:
        """`source` as the root, read-only."""
        self._add(Step(StepKind.ROOT, "/", source))

    def layered_root(self, source: str, size: int) -> None:
        """`source` as the root, under a layer of the call's own, of `size` bytes."""
        self._add(Step(StepKind.LAYERED_ROOT, "/", source, size=size), grows=True)

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
        step = Step(StepKind.BIND, target, str(mount.source), held, writable=mount.writable)
        self._add(step, writable=mount.writable, grows=grows)

    def bind(self, source: str, target: str) -> None:
        """A path of the host, mounted read-only at a path without links."""
        self._add(Step(StepKind.BIND, target, source))

    def new_directory(self, path: str) -> None:
        """An empty directory, in a place in memory."""
        self._view.layers.append(_Laid(path, None, steps=[Step(StepKind.DIRECTORY, path)]))

    def empty(self, path: str, size: int, mode: int = 0o755) -> None:
        """A fresh directory in memory, of `size` bytes."""
        self._add(Step(StepKind.EMPTY, path, mode=mode, size=size))

    def link(self, path: str, target: str) -> None:
        """A symbolic link, where there is nothing."""
        self._view.layers.append(_Laid(path, None, steps=[Step(StepKind.LINK, path, target)]))

    def system(self) -> None:
        """A /proc and a /dev of the sandbox's own."""
        for kind, path, size in ((StepKind.PROC, "/proc", 0), (StepKind.DEV, "/dev", SHARED_MEMORY)):
            self._view.layers.append(_Laid(path, None, steps=[Step(kind, path, size=size)]))

    def hide(self, path: str) -> None:
        """Nothing where the host has something, and nothing to be written there."""
        origin = self._view.origin(path)
        if origin is None:
            return
        if os.path.isdir(origin):
            self.empty(path, FOR_MOUNTS)
            self._opened.append(path)
        elif os.path.exists(origin):  # noqa: PTH110
            self._add(Step(StepKind.CONTENT, path))

    def put(self, file: CallFile) -> None:
        """A file of the call, read-only; room is made for it.

        Raises:
            ExecutionError: it has no place.
        """
        path = self.resolve(file.path)
        self.make_room(path, is_directory=False)
        descriptor = self._hold(make_memory_file(file.content))
        self._add(Step(StepKind.CONTENT, path, descriptor=descriptor, mode=0o644))

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
        """See `View.resolve`. A launcher follows no links: bubblewrap would follow them outside its new root."""
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
        lid = StepKind.EMPTY
        if gap.path == "/":
            self._view.layers[gap.number].steps.clear()
            lid = StepKind.EMPTY_ROOT
        opened = [_Laid(gap.path, None, steps=[Step(lid, gap.path, size=FOR_MOUNTS)])]
        self._opened.append(gap.path)
        is_fixed = self._is_fixed and gap.number == 0
        for entry in entries_of(gap):
            name = os.path.join(gap.path, entry.name)
            if name in ("/proc", "/dev"):
                continue
            if entry.is_symlink():
                step = Step(StepKind.LINK, name, os.readlink(entry.path))
            elif gap.path == "/" or is_fixed:
                step = Step(StepKind.BIND, name, entry.path, optional=True)
            else:
                held = open_entry(entry)
                if held is None:
                    continue
                step = Step(StepKind.BIND, name, entry.path, self._hold(held), optional=True)
            opened.append(_Laid(name, entry.path, steps=[step]))
        self._view.layers[gap.number + 1 : gap.number + 1] = opened

    def _hold(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return descriptor

    def _add(self, step: Step, *, writable: bool = False, grows: bool = False) -> None:
        source = step.source if step.kind in _OF_THE_HOST else None
        self._view.layers.append(_Laid(step.path, source, writable, grows, [step]))


def _identity(step: Step) -> Identity | None:
    """Which file or directory of the host it lays; None where it lays nothing of the host, or that is gone."""
    if step.descriptor is not None:
        return identity_of(step.descriptor)
    if step.kind not in _OF_THE_HOST or step.source is None:
        return None
    try:
        return identity_of(os.lstat(step.source))
    except OSError:
        return None


def make_memory_file(content: bytes) -> int:
    """A descriptor of a file in memory with that content, to be read from its start.

    Raises:
        OSError: no more descriptors, or memory.
    """
    descriptor = os.memfd_create("praxis-mcp")
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _makes_places(made: Mapping[str, tuple[int, bool]], path: str) -> bool:
    """Whether what has been laid at or above a path last may hold what it lacks."""
    found = made.get("/")
    place = path
    while len(place) > 1:
        if place in made and (found is None or made[place][0] > found[0]):
            found = made[place]
        place = place.rpartition("/")[0]
    return found is not None and found[1]


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
