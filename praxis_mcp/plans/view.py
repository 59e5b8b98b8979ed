"""What a tool sees where: things of the host that lie at paths of the tool's, later ones on top of earlier ones.

One model for all engines. Things are laid in the order of their depth, each where the links of what is there already
lead. Where the place of one is missing in another, room for it is made in what the tool sees, and never on the host: so
not in a writable mount.
"""

# Paths of two file systems, as text: one of them is not this process's.
# ruff: noqa: PTH112, PTH118, PTH120

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Blueprint, Mount, Where
from praxis_mcp.support.files import follow_links, link_target


@dataclass(slots=True)
class Layer:
    """One thing that is somewhere.

    Attributes:
        path: where, for the tool; without links.
        source: on the host; None for what the host does not have.
        writable: whether what is made in it stays on the host.
        grows: whether what is missing in it may be made there: it is the server's own.
    """

    path: str
    source: str | None
    writable: bool = False
    grows: bool = False

    def origin(self, path: str) -> str | None:
        """Where on the host that is which the tool sees at `path`, which is this layer's own or below."""
        if self.source is None:
            return None
        below = path[len(self.path) :].lstrip("/")
        return os.path.join(self.source, below) if below else self.source


@dataclass(frozen=True, slots=True)
class Gap:
    """A directory that lacks the place of something else, and cannot be written.

    Attributes:
        path: of the directory, for the tool.
        origin: where it is on the host.
        number: of the layer that it is part of.
    """

    path: str
    origin: str
    number: int


L = TypeVar("L", bound=Layer)


class View(Generic[L]):
    """What is where.

    Attributes:
        layers: later ones on top.
    """

    def __init__(self, layers: Iterable[L] = ()) -> None:
        self.layers: list[L] = list(layers)

    def provider(self, path: str) -> int | None:
        """The number of the layer that has what the tool sees at `path`; None where none has."""
        for number in range(len(self.layers) - 1, -1, -1):
            top = self.layers[number].path
            if path == top or path.startswith(f"{top.rstrip('/')}/"):
                return number
        return None

    def origin(self, path: str) -> str | None:
        """Where on the host that is, or would lie, which the tool sees at `path`; None where no layer is of the
        host."""
        number = self.provider(path)
        return None if number is None else self.layers[number].origin(path)

    def resolve(self, path: str) -> str:
        """Where `path` leads for the tool: absolute, without ``..`` and without links that a layer holds.

        What does not exist is taken as it is written.

        Raises:
            ExecutionError: it has more links than the kernel would follow.
        """
        try:
            return follow_links(path, self._link)
        except OSError as exc:
            raise ExecutionError(f"Nothing can be mounted at {path[:200]}: its links go round in circles.") from exc

    def _link(self, place: str) -> str | None:
        origin = self.origin(place)
        return None if origin is None else link_target(origin)

    def find_gap(self, path: str, *, is_directory: bool) -> Gap | None:
        """Where room must be made before something can lie at `path`; None where nothing has to be.

        Args:
            path: without links.
            is_directory: whether a directory is to lie there.

        Raises:
            ExecutionError: it has no place there.
        """
        number = self.provider(path)
        if number is None:
            return None
        layer = self.layers[number]
        origin = layer.origin(path)
        if origin is None:
            return None
        if os.path.lexists(origin):
            if os.path.isdir(origin) is not is_directory:
                there, given = ("a file", "a directory") if is_directory else ("a directory", "a file")
                raise ExecutionError(
                    f"{path} is {there} ({origin} on the host), where {given} cannot lie.",
                    remedy="Choose another place in the contract.",
                )
            return None
        if layer.grows:
            return None
        place, wanted = path, origin
        while not os.path.lexists(origin) and place != layer.path:
            place = os.path.dirname(place)
            origin = layer.origin(place) or wanted
        if not os.path.isdir(origin):
            raise ExecutionError(
                f"{path} cannot exist for the tool: {place} ({origin} on the host) is not a directory.",
                remedy="Choose another place in the contract.",
            )
        if layer.writable:
            # An engine that made it would leave it behind on the host.
            kind = "directory" if is_directory else "file"
            raise ExecutionError(
                f"{path} is in the writable mount {layer.path}, where it does not exist, and nothing is created in "
                "a writable mount.",
                remedy=f"Create {wanted} on the host (an empty {kind}), or choose another place in the contract.",
            )
        return Gap(place, origin, number)


def check_places(blueprint: Blueprint, make: Callable[[Path], Path | None] | None = None) -> None:
    """See to it that all that a blueprint lays has a place, as far as its mounts tell. Looks at files.

    Args:
        blueprint: what it lays.
        make: makes a directory where it may, or says that it would: for places in the writable mounts of a contract in
            an older spelling.

    Raises:
        ExecutionError: something has none; says what to create.
    """
    if not is_nested(blueprint):
        return
    view: View[_Given] = View()

    def look(path: str, *, is_directory: bool) -> str:
        place = view.resolve(path)
        number = view.provider(place)
        layer = view.layers[number] if number is not None else None
        origin = layer.origin(place) if layer is not None and layer.is_older and layer.writable else None
        # A place that is missing in a mount that is not there yet is not looked for: both will be made.
        if make is None or origin is None or not is_directory or os.path.lexists(origin) or make(Path(origin)) is None:
            view.find_gap(place, is_directory=is_directory)
        return place

    for path, mount in list_layers(blueprint):
        place = look(path, is_directory=mount is None or mount.is_missing or os.path.isdir(mount.source))
        if mount is None:
            view.layers.append(_Given(place, None))
        else:
            view.layers.append(_Given(place, str(mount.source), mount.writable, is_older=mount.is_older))
    for path in start_directories(blueprint):
        look(path, is_directory=True)


@dataclass(slots=True)
class _Given(Layer):
    """A layer of a blueprint. `is_older`: see `Mount`."""

    is_older: bool = False


def is_nested(blueprint: Blueprint) -> bool:
    """Whether anything is in a mount, so that it may lack its place there."""
    targets = [mount.target for mount in blueprint.mounts]
    return bool(targets) and any(
        is_below(path, targets) for path in (*targets, *_own(blueprint), *start_directories(blueprint))
    )


def list_layers(blueprint: Blueprint) -> list[tuple[str, Mount | None]]:
    """All that a blueprint lays, in that order: its mounts; and None for caches and the directory for artifacts, which
    the engine makes."""
    found = [*((mount.target, mount) for mount in blueprint.mounts), *((path, None) for path in _own(blueprint))]
    return sorted(found, key=lambda item: depth(item[0]))


def start_directories(blueprint: Blueprint) -> list[str]:
    """The working directory in a container; nothing where the contract names none."""
    return [blueprint.working_dir] if blueprint.working_dir and blueprint.where is Where.CONTAINER else []


def _own(blueprint: Blueprint) -> list[str]:
    return [*blueprint.cache_dirs, *([blueprint.artifact_dir] if blueprint.artifact_dir else [])]


def is_below(path: str, places: Iterable[str]) -> bool:
    """Whether it is inside one of them."""
    return any(path.startswith(place.rstrip("/") + "/") and path != place for place in places)


def depth(path: str) -> tuple[int, str]:
    """What paths are sorted by so that each comes after those that it is in."""
    return path.count("/"), path


def by_depth(mounts: Iterable[Mount]) -> list[Mount]:
    """In the order in which they are laid."""
    return sorted(mounts, key=lambda mount: depth(mount.target))
