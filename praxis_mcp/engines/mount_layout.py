"""The file system of a sandbox, as options for bubblewrap: what lies where, later ones on top.

It knows where on the host each path of the sandbox comes from, and makes room for mounts whose targets do not exist in
a tree that cannot be written: by a fresh directory that holds the same entries, each mounted singly.
"""

# Paths of two file systems, as text: one of them is not this process's.
# ruff: noqa: PTH112, PTH115, PTH118, PTH120

from __future__ import annotations

import os
from collections.abc import Iterable

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import CallFile

_MAX_SIBLINGS = 256


class MountLayout:
    """Builds the file system options of one sandbox. Opens descriptors: close them once bubblewrap has started.

    Attributes:
        words: the options so far.
        descriptors: what bubblewrap must inherit.
    """

    def __init__(self) -> None:
        self.words: list[str] = []
        self.descriptors: list[int] = []
        # Path for the tool → path on the host, None for what only the sandbox has.
        self._layers: list[tuple[str, str | None]] = []
        self._writable: list[str] = []
        self._opened: list[str] = []

    def close(self) -> None:
        """Close the descriptors."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def root(self, source: str, targets: Iterable[str]) -> None:
        """`source` as the root, read-only, with room for `targets`."""
        if all(os.path.lexists(os.path.join(source, path.split("/")[1])) for path in targets):
            self.bind(source, "/")
        else:
            # A read-only root has no room for a new directory, so a root of our own holds what that one does: it costs
            # some 3 ms, one bind mount for each entry.
            self._layers.append(("/", source))
            self.open("/")

    def bind(self, source: str, target: str, *, writable: bool = False) -> None:
        """A path of the host, mounted."""
        self.words += ["--bind" if writable else "--ro-bind", source, target]
        self._layers.append((target, source))
        if writable:
            self._writable.append(target)

    def empty(self, path: str, *options: str) -> None:
        """A fresh directory in memory; `options` go before it (``--size``, ``--perms``)."""
        self.words += [*options, "--tmpfs", path]
        self._layers.append((path, None))

    def only_here(self, *paths: str) -> None:
        """Paths that other options have made, and that the host lacks."""
        self._layers += [(path, None) for path in paths]

    def hide(self, path: str) -> None:
        """Nothing where the host has something."""
        origin = self.origin(path)
        if origin is None:
            return
        if os.path.isdir(origin):
            self.empty(path)
        elif os.path.exists(origin):  # noqa: PTH110
            self.words += ["--ro-bind", "/dev/null", path]
            self._layers.append((path, None))

    def put(self, file: CallFile) -> None:
        """A file of the call, read-only."""
        descriptor = os.memfd_create("praxis-file")
        self.descriptors.append(descriptor)
        with os.fdopen(os.dup(descriptor), "wb") as copy:
            copy.write(file.content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        self.words += ["--ro-bind-data", str(descriptor), file.path]
        self._layers.append((file.path, None))

    def origin(self, path: str) -> str | None:
        """Where on the host that lies which the tool sees at `path`; None where only the sandbox has it."""
        for target, source in reversed(self._layers):
            if path == target or is_below(path, [target]):
                return None if source is None else os.path.join(source, path[len(target) :].lstrip("/"))
        return None

    def make_room(self, path: str) -> None:
        """See to it that something can be mounted at `path`, which may not exist yet.

        Raises:
            ExecutionError: there can be no such place.
        """
        origin = self.origin(path)
        if origin is None or os.path.lexists(origin):
            return
        place = path
        while not os.path.lexists(origin):
            place = os.path.dirname(place)
            origin = self.origin(place)
            if origin is None:
                return
        if not os.path.isdir(origin):
            raise ExecutionError(f"{path} cannot exist for the tool: {place} is a file.")
        if is_below(path, self._writable):
            # Bubblewrap would create it there, and leave it behind on the host.
            raise ExecutionError(
                f"{path} would lie inside a writable mount, where it does not exist.",
                remedy=f"Create it on the host, at {origin}, or choose another place.",
            )
        self.open(place)

    def open(self, path: str) -> None:
        """Lay a fresh directory over `path` that holds the same entries and has room for more.

        Raises:
            ExecutionError: it has too many.
        """
        origin = self.origin(path) or path
        entries = sorted(os.scandir(origin), key=lambda entry: entry.name)
        if len(entries) > _MAX_SIBLINGS:
            raise ExecutionError(
                f"{path} has more than {_MAX_SIBLINGS} entries, too many to make room for another one.",
                remedy="Use a path that exists, or one directly below /, such as /work.",
            )
        if path != "/":  # bubblewrap's own root is such a directory already
            self.words += ["--tmpfs", path]
        self._layers.append((path, None))
        self._opened.append(path)
        for entry in entries:
            name = os.path.join(path, entry.name)
            if name in ("/proc", "/dev"):
                continue
            if entry.is_symlink():
                self.words += ["--symlink", os.readlink(entry.path), name]
            else:
                self.words += ["--ro-bind-try", entry.path, name]
            self._layers.append((name, entry.path))

    def seal(self) -> None:
        """Nothing more comes: what `open` has laid over cannot be written."""
        for path in self._opened:
            self.words += ["--remount-ro", path]


def is_below(path: str, places: Iterable[str]) -> bool:
    """Whether it lies inside one of them."""
    return any(path.startswith(place.rstrip("/") + "/") and path != place for place in places)
