"""An image's file system as a sandboxed command sees it.

The image's root, read-only or under a layer of the call's own; a private /tmp; what the contract mounts; and nothing
else of the host.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.bubblewrap import system_mounts
from praxis_mcp.engines.mount_layout import MountLayout, is_below
from praxis_mcp.images.model import StoredImage
from praxis_mcp.images.rooted import above, below, resolve
from praxis_mcp.plans.model import CallFile, Mount, Plan

SCRATCH_SIZE = 256 * 1024 * 1024
"""Bytes of ``/tmp``, and of each volume, where the root is read-only; they count against the memory limit."""

_TMP = "/tmp"  # noqa: S108 - inside the sandbox
_OF_THE_HOST = ("/etc/resolv.conf", "/etc/hosts")
"""What names are looked up by, where the network is the host's."""


@dataclass(frozen=True, slots=True)
class Places:
    """What a call has on the host: `artifacts`, its directory for them; `caches`, one for each of `cache_dirs`."""

    artifacts: Path | None = None
    caches: tuple[tuple[str, Path], ...] = ()


class SandboxView(MountLayout):
    """Builds the file system options of one sandbox.

    Args:
        image: whose root it is.
        writable_root: where the image's root lies under a layer of the call's own; None for a read-only root.
        sizes: whether bubblewrap can bound a file system in memory (0.7 or newer).
    """

    def __init__(self, image: StoredImage, writable_root: str | None, *, sizes: bool) -> None:
        super().__init__()
        self._image = image
        self._writable_root = writable_root
        self._sizes = sizes

    def build(self, plan: Plan, places: Places, working_dir: str) -> str:
        """Lay it all out.

        Args:
            plan: what is to be seen.
            places: what the call has on the host.
            working_dir: as the contract or image has it.

        Returns:
            the working directory, links resolved.

        Raises:
            ExecutionError: a mount or file has no place.
        """
        fixed = plan.blueprint
        mounts = sorted(self._mounts(plan, places), key=lambda mount: mount.target.count("/"))
        files = [CallFile(self._real(file.path), file.content) for file in plan.call.files]
        start = self._real(working_dir)
        targets = [mount.target for mount in mounts]
        first = [path for path in (*targets, *(file.path for file in files)) if not is_below(path, targets)]
        scratch = self._scratch_places(targets) if fixed.read_only is not False else []
        self._base([*first, *scratch, *([] if is_below(start, [*targets, *scratch]) else [start])])
        for path in scratch:
            self.make_room(path)
            self.empty(path, *(("--perms", "1777", "--size", str(SCRATCH_SIZE)) if self._sizes else ()))
        if fixed.network is not Network.NONE:
            for path in _OF_THE_HOST:
                if Path(path).exists():
                    self.make_room(real := self._real(path))
                    self.bind(path, real)
        for path in first:
            self.make_room(path)
        for mount in mounts:
            self.make_room(mount.target)
            self.bind(str(mount.source), mount.target, writable=mount.writable)
        for file in files:
            self.make_room(file.path)
            self.put(file)
        self._make_directory(start)
        self.seal()
        return start

    def make_room(self, path: str) -> None:
        """See the base. In a root of the call's own bubblewrap makes what is missing, and nobody else sees it."""
        mounted = [target for target, source in self._layers if source is not None and target != "/"]
        if self._writable_root is None or is_below(path, mounted):
            super().make_room(path)

    def _base(self, targets: Iterable[str]) -> None:
        if self._writable_root is None:
            self.root(str(self._image.root), targets)
        else:
            self.words += ["--bind", self._writable_root, "/"]
            self._layers.append(("/", str(self._image.root)))
        self.words += system_mounts()
        self.only_here("/proc", "/dev")

    def _mounts(self, plan: Plan, places: Places) -> Iterator[Mount]:
        fixed = plan.blueprint
        for mount in fixed.mounts:
            yield Mount(mount.source, self._real(mount.target), mount.writable)
        for target, source in places.caches:
            yield Mount(source, self._real(target), writable=True)
        if places.artifacts is not None and fixed.artifact_dir is not None:
            yield Mount(places.artifacts, self._real(fixed.artifact_dir), writable=True)

    def _scratch_places(self, targets: Sequence[str]) -> list[str]:
        """What stays writable in a read-only root: /tmp, and volumes of the image that have no content of their own."""
        found = [self._real(_TMP)]
        for path in map(self._real, self._image.volumes):
            place = Path(below(self._image.root, path))
            if path != "/" and (not place.exists() or (place.is_dir() and not any(place.iterdir()))):
                found.append(path)
        places, taken = set(found), set(targets)
        return [path for path in dict.fromkeys(found) if path not in taken and places.isdisjoint(above(path))]

    def _make_directory(self, path: str) -> None:
        origin = self.origin(path)
        if origin is None or not os.path.lexists(origin):
            self.make_room(path)
            self.words += ["--dir", path]

    def _real(self, path: str) -> str:
        return resolve(self._image.root, path)
