"""A container that waits for its only call: what it has on this machine, its channel, its end."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.to_thread

from praxis_mcp.engines.artifacts import make_open_directory
from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.own import OwnContainer
from praxis_mcp.engines.docker.stream import AttachedStream, ConnectionLost
from praxis_mcp.engines.init.waiter import WAITER_MAX_AGE, Waiter
from praxis_mcp.engines.mounts.openings import Room, with_room
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Blueprint, CallFile, Plan
from praxis_mcp.plans.view import is_nested
from praxis_mcp.support.logs import logger
from praxis_mcp.support.rooted import identity_of, open_path
from praxis_mcp.support.scratch import Scratch

Stamps = tuple[tuple[int, int] | None, ...]
"""Device and inode of each mount's source; None where it is missing."""


@dataclass(frozen=True, slots=True)
class WarmKey:
    """What containers for a call have in common: the blueprint, and where the call's files are."""

    blueprint: Blueprint
    files: tuple[str, ...]


class WarmContainer:
    """A container whose praxis-init has said hello."""

    def __init__(
        self,
        daemon: DockerDaemon,
        container: OwnContainer,
        stream: AttachedStream,
        waiter: Waiter,
        place: WarmPlace,
        image: WarmImage,
    ) -> None:
        self.id = container.id
        self._container = container
        self.waiter = waiter
        self.place = place
        self.image = image
        self._daemon = daemon
        self._stream = stream
        self._until = time.monotonic() + WAITER_MAX_AGE

    def is_fresh(self) -> bool:
        """See `WarmItem.is_fresh`. Not if a mount's source was replaced since, or a directory in which
        room was made has other entries: the container has the old ones."""
        return (
            time.monotonic() < self._until
            and self._stream.is_silent()
            and self.place.stamps == mounted(self.place.key.blueprint)
            and (self.place.room is None or self.place.room.is_current())
        )

    async def discard(self) -> None:
        """See `WarmItem.discard`."""
        await self.waiter.aclose()
        await self._container.remove(self._daemon)
        await self.place.remove()


@dataclass(frozen=True, slots=True)
class WarmImage:
    """An image as it was when the container was made."""

    id: str
    digest: str


class WarmPlace:
    """What a waiting container has on this machine: a file for each that the call will have, and its artifacts'."""

    def __init__(self, key: WarmKey) -> None:
        self.key = key
        self.stamps = mounted(key.blueprint)
        mounts = zip(key.blueprint.mounts, self.stamps, strict=True)
        self.blueprint = replace(key.blueprint, mounts=tuple(replace(mount, identity=stamp) for mount, stamp in mounts))
        self.files: tuple[tuple[CallFile, Path], ...] = ()
        self.artifacts: Path | None = None
        self.room: Room | None = None
        self._scratch: Scratch | None = None

    def has(self, blueprint: Blueprint) -> bool:
        """Whether what is mounted is what was judged for a call."""
        judged = (mount.identity for mount in blueprint.mounts)
        return all(identity in (None, stamp) for identity, stamp in zip(judged, self.stamps, strict=True))

    async def make(self) -> None:
        """Make it.

        Raises:
            OSError: this machine refuses.
            ExecutionError: something has no place among the mounts.
        """
        blueprint = self.key.blueprint
        if self.key.files or blueprint.artifact_dir is not None or is_nested(blueprint):
            await anyio.to_thread.run_sync(self._make)

    def _make(self) -> None:
        self._scratch = Scratch.make()
        root = self._scratch.path
        if self.key.blueprint.artifact_dir is not None:
            self.artifacts = root / "artifacts"
            make_open_directory(self.artifacts)
        if is_nested(self.key.blueprint):
            self.room = with_room(self.blueprint, root)
        files: list[tuple[CallFile, Path]] = []
        for number, path in enumerate(self.key.files):
            place = root / str(number)
            place.touch(mode=0o644)  # the mount is read-only; the directory keeps other users of this machine out
            place.chmod(0o644)
            files.append((CallFile(path, b""), place))
        self.files = tuple(files)

    async def write(self, plan: Plan) -> None:
        """The call's files, into the very files that the container has mounted.

        Raises:
            ExecutionError: they cannot be written.
        """

        def write() -> None:
            for (_, place), file in zip(self.files, plan.call.files, strict=True):
                place.write_bytes(file.content)

        if self.files:
            try:
                await anyio.to_thread.run_sync(write)
            except OSError as exc:
                raise ExecutionError(f"{plan.blueprint.tool}: its files cannot be written: {exc.strerror}.") from exc

    async def remove(self) -> None:
        """Remove what is left of it, cancelled or not."""
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(scratch.remove)


def mounted(blueprint: Blueprint) -> Stamps:
    """Which files and directories are mounted. A number cannot come again while a container holds the file."""
    return tuple(_stamp(mount.source) for mount in blueprint.mounts)


def _stamp(path: Path) -> tuple[int, int] | None:
    # Microseconds, on the path of every warm call. The path has no links since it was judged; one that is there now
    # has taken the place of what was judged.
    try:
        if sys.platform != "linux":
            found = os.stat(path)  # noqa: PTH116
            return found.st_dev, found.st_ino
        held = open_path(str(path))
    except OSError:
        return None
    try:
        return identity_of(held)
    finally:
        os.close(held)


class AttachedChannel:
    """The attached streams of a container as the channel to its praxis-init (see `waiting.Channel`).

    Attributes:
        complaint: the last that praxis-init, or the daemon in its place, has said outside the channel.
    """

    def __init__(self, stream: AttachedStream) -> None:
        self._stream = stream
        self._pieces = stream.pieces()
        self.complaint = ""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """See `waiting.Channel`."""
        try:
            async for name, piece in self._pieces:
                if name == "stdout":
                    return piece
                self.complaint = piece.decode(errors="replace").strip()
                logger.debug("praxis-init says: {}", self.complaint)
        except (ConnectionLost, ExecutionError) as exc:
            raise anyio.BrokenResourceError from exc
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        """See `waiting.Channel`."""
        await self._stream.send(item)

    async def aclose(self) -> None:
        """Hang up: what waits or runs in the container ends."""
        await self._stream.aclose()
        await self._pieces.aclose()
