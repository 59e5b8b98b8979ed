"""Mounts in mounts, for engines that mount things of the host: room for those whose place is missing in a read-only
one, and the file systems that this machine has mounted below a directory.

The directory that lacks the place is laid over by one of the server's own, which holds the place and an empty entry for
each of the directory's; what these hold is mounted onto them singly. Nothing is made in the mounted directory itself.
"""

# Paths of two file systems, as text: one of them is not this process's.
# ruff: noqa: PTH112, PTH115, PTH118, PTH120

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from praxis_mcp.engines.mounts.layout import entries_of, open_entry
from praxis_mcp.engines.mounts.table import place_of
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Blueprint, Mount
from praxis_mcp.plans.view import Gap, Layer, View, list_layers, start_directories
from praxis_mcp.support.rooted import Identity, identity_of


@dataclass(slots=True)
class _Laid(Layer):
    """A layer, and the mount that it is; None for what is mounted otherwise."""

    mount: Mount | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """The mounts of a blueprint, with those that make room among them.

    Attributes:
        mounts: all of them, in the order in which they are laid.
        opened: the directories of the host whose entries are mounted singly, and when each was last changed.
    """

    mounts: tuple[Mount, ...]
    opened: tuple[tuple[str, int], ...]

    def is_current(self) -> bool:
        """Whether the opened directories still have the entries that they had."""
        try:
            return all(os.stat(path).st_mtime_ns == changed for path, changed in self.opened)  # noqa: PTH116
        except OSError:
            return False


def with_room(blueprint: Blueprint, scratch: Path) -> Room:
    """Room for all that a blueprint lays into its mounts. Looks at files.

    Args:
        blueprint: what is to be mounted; what it lays in its mounts has been checked (`check_places`).
        scratch: an existing directory that lives as long as the mounts.

    Raises:
        ExecutionError: something has no place, or there are too many entries next to it.
        OSError: the scratch directory cannot be written.
    """
    openings = _Openings(scratch)
    for path, mount in list_layers(blueprint):
        openings.lay(path, mount)
    for path in start_directories(blueprint):
        openings.make_place(path, is_directory=True)
    return Room(openings.mounts, tuple(openings.origins.items()))


class _Openings:
    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._view: View[_Laid] = View()
        self._opened: set[str] = set()
        self.origins: dict[str, int] = {}

    @property
    def mounts(self) -> tuple[Mount, ...]:
        # No engine mounts two things at one place, and of two the last is seen.
        last = {layer.path: layer.mount for layer in self._view.layers}
        return tuple(mount for mount in last.values() if mount is not None)

    def lay(self, path: str, mount: Mount | None) -> None:
        """Lay a mount; None is a directory that the engine mounts itself."""
        place = self.make_place(path, is_directory=mount is None or os.path.isdir(mount.source))
        if mount is None:
            self._view.layers.append(_Laid(place, None))
        else:
            mount = replace(mount, target=place)
            self._view.layers.append(_Laid(place, str(mount.source), mount.writable, mount=mount))

    def make_place(self, path: str, *, is_directory: bool) -> str:
        """Where `path` leads; there is a place there now."""
        place = self._view.resolve(path)
        gap = self._view.find_gap(place, is_directory=is_directory)
        if gap is not None:
            self._open(gap)
        number = self._view.provider(place)
        if number is not None and self._view.layers[number].path in self._opened:
            origin = self._view.layers[number].origin(place)
            if origin is not None and not os.path.lexists(origin):
                os.makedirs(origin if is_directory else os.path.dirname(origin), exist_ok=True)  # noqa: PTH103
                if not is_directory:
                    Path(origin).touch()
        return place

    def _open(self, gap: Gap) -> None:
        shell = self._scratch / f"opened{len(self._opened)}"
        shell.mkdir(mode=0o755)
        self.origins[gap.origin] = os.stat(gap.origin).st_mtime_ns  # noqa: PTH116
        layers = [_laid(gap.path, shell, grows=True)]
        for entry in entries_of(gap):
            place = shell / entry.name
            if entry.is_symlink():
                place.symlink_to(os.readlink(entry.path))
                continue
            identity = None
            if sys.platform == "linux":
                held = open_entry(entry)
                if held is None:
                    continue
                identity = identity_of(held)
                os.close(held)
            if entry.is_dir():
                place.mkdir()
            else:
                place.touch()
            layers.append(_laid(os.path.join(gap.path, entry.name), Path(entry.path), identity=identity))
        self._opened.add(gap.path)
        self._view.layers[gap.number + 1 : gap.number + 1] = layers


def _laid(path: str, source: Path, *, grows: bool = False, identity: Identity | None = None) -> _Laid:
    return _Laid(path, str(source), grows=grows, mount=Mount(source, path, identity=identity))


MAX_SUBMOUNTS = 64
"""File systems below one mount; each is mounted singly."""

_TABLE = Path("/proc/self/mountinfo")


def submounts(source: Path) -> list[str]:
    """Where file systems are mounted below `source`, sorted; nothing where the machine has no such table.

    Reads the table alone, and touches none of them: a file server that hangs would hold up the caller.

    Args:
        source: absolute, links resolved.

    Raises:
        ExecutionError: there are more than `MAX_SUBMOUNTS`.
    """
    try:
        table = _TABLE.read_text(errors="surrogateescape")
    except OSError:
        return []
    prefix = str(source).rstrip("/") + "/"
    found = sorted({place for place in _uncovered(table, prefix) if place != prefix})
    if len(found) > MAX_SUBMOUNTS:
        raise ExecutionError(
            f"{source} has {len(found)} file systems mounted below it, too many to mount them all.",
            remedy="Mount those of its directories that the tool needs.",
        )
    return found


def _uncovered(table: str, prefix: str) -> Iterator[str]:
    """Those places below `prefix` to which a path leads. What another file system was mounted over stays in the table,
    and in a directory that has gone with it the daemon would look in vain."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in filter(None, table.split("\n")):
        number, parent = line.split(" ", 2)[:2]
        mounts[number] = (parent, place_of(line))
    # The first of all is its own parent.
    attached = {mount for number, mount in mounts.items() if mount[0] != number}

    def is_covered(number: str) -> bool:
        while number in mounts:
            parent, place = mounts[number]
            if any((parent, str(above)) in attached for above in PurePosixPath(place).parents):
                return True
            if parent == number:
                return False
            number = parent
        return False

    for number, (_, place) in mounts.items():
        if place.startswith(prefix) and not is_covered(number):
            yield place
