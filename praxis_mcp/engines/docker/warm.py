"""Containers that are started before their call: each fresh, for one call, and gone after it.

All that a blueprint fixes is fixed when the container is made. What varies travels to praxis-init, its PID 1, over
the attached standard input. Only daemons on a Unix socket of this machine: there, praxis-init and files can be
mounted, and whether a container still waits can be seen without asking.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from praxis_mcp.engines.artifacts import adopt_artifact_directory, make_open_directory
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.connections import AttachedStream, ConnectionLost, ImageLookup, Refusal
from praxis_mcp.engines.docker.handover import CONTAINER_START_TIMEOUT, AttachedChannel, Handover
from praxis_mcp.engines.docker.images import ImageFacts
from praxis_mcp.engines.docker.ownership import DockerCaches, OwnContainer, OwnContainers, waiting_labels
from praxis_mcp.engines.docker.spec import DockerInit, Staging, waiting_config
from praxis_mcp.engines.init.waiter import REPORT_GRACE, WAITER_PATIENCE, Waiter
from praxis_mcp.engines.mounts.nested import Room, with_room
from praxis_mcp.engines.running import Finished
from praxis_mcp.engines.warm.call import WarmCalls, WarmKey, find_cold_reason
from praxis_mcp.engines.warm.pool import WarmBudget
from praxis_mcp.errors import ExecutionError, ImageError
from praxis_mcp.plans.model import Blueprint, CallFile, Plan
from praxis_mcp.plans.view import is_nested
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import WarmSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.rooted import identity_of, open_path
from praxis_mcp.support.scratch import Scratch

Stamps = tuple[tuple[int, int] | None, ...]
"""Device and inode of each mount's source; None where it is missing."""
DockerKey = WarmKey[None]
"""The key of warm containers."""


class WarmContainer:
    """A container whose praxis-init has said hello."""

    def __init__(
        self,
        daemon: DockerDaemon,
        container: OwnContainer,
        waiter: Waiter,
        place: WarmPlace,
        image: ImageFacts,
    ) -> None:
        self.id = container.id
        self._container = container
        self.waiter = waiter
        self.place = place
        self.image = image
        self._daemon = daemon

    def is_fresh(self) -> bool:
        """See `WarmItem.is_fresh`. Not if a mount's source was replaced since, or a directory in which
        room was made has other entries: the container has the old ones."""
        return (
            self.waiter.is_waiting()
            and self.place.stamps == mounted(self.place.key.blueprint)
            and (self.place.room is None or self.place.room.is_current())
        )

    async def discard(self) -> None:
        """See `WarmItem.discard`."""
        await self.waiter.aclose()
        await self._container.remove(self._daemon)
        await self.place.remove()


class WarmPlace:
    """What a waiting container has on this machine: a file for each that the call will have, and its artifacts'."""

    def __init__(self, key: DockerKey) -> None:
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
            found = path.stat()
            return found.st_dev, found.st_ino
        held = open_path(str(path))
    except OSError:
        return None
    try:
        return identity_of(held)
    finally:
        os.close(held)


def find_cold_reason_of_containers(plan: Plan, settings: WarmSettings, *, can_wait: bool) -> str:
    """Why no container can wait for a call; empty where one can.

    Args:
        plan: the call.
        settings: how many may wait.
        can_wait: containers can on this daemon.
    """
    if reason := find_cold_reason(settings, plan.blueprint) or _cold_reason(plan):
        return reason
    return "" if can_wait else "containers wait on a daemon with a Unix socket here only, by praxis-init"


def _cold_reason(plan: Plan) -> str:
    return "the image's own entrypoint starts its command (use_entrypoint)" if plan.blueprint.use_entrypoint else ""


class WarmDocker(WarmCalls[None, WarmContainer]):
    """The warm containers of one connection to a daemon.

    Args:
        daemon: the daemon, on a Unix socket.
        init: praxis-init for its machine.
        own: knows those in use.
        caches: makes their cache volumes.
        settings: the settings.
        budget: what the engine shares with others.
    """

    log = "the daemon's log"

    def __init__(
        self,
        daemon: DockerDaemon,
        init: DockerInit,
        own: OwnContainers,
        caches: DockerCaches,
        settings: Settings,
        budget: WarmBudget,
    ) -> None:
        super().__init__(settings.warm, budget, Refusal, ConnectionLost)
        self._daemon = daemon
        self._caches = caches
        self._init = init
        self._own = own
        self._settings = settings
        self._lookup: ImageLookup | None = daemon.image_lookup()

    @staticmethod
    def key(plan: Plan, context: ExecutionContext) -> DockerKey | None:
        """The key of a plan's containers; None for a plan that takes the cold path always."""
        fixed = plan.blueprint
        if not fixed.warm or _cold_reason(plan) or (fixed.artifact_dir and context.directory is None):
            return None
        return WarmKey.of(plan, None) if context.is_served() else None

    async def run(self, plan: Plan, context: ExecutionContext, cold: Callable[[], Awaitable[Finished]]) -> Finished:
        """Run a call in a container that waits for it, or by `cold` from the beginning (see `WarmCalls.call`).

        Raises:
            CommandNotFound, ExecutionError: as the cold path's.
        """

        async def hand_over(container: WarmContainer) -> Finished | None:
            place = container.place
            if not place.has(plan.blueprint) or not await self._is_current(container):
                return None
            await place.write(plan)
            handover = Handover(self._daemon, container.id, plan, context, container.image.digest)
            end = await handover.run(container.waiter)
            if place.artifacts is not None:
                end = replace(end, left_out=await adopt_artifact_directory(plan, context, place.artifacts))
            return end

        return await self.call(self.key(plan, context), hand_over, cold, context.claim)

    async def close(self) -> None:
        """See `WarmCalls.close`."""
        await super().close()
        if self._lookup is not None:
            with anyio.CancelScope(shield=True):
                await self._lookup.aclose()

    async def _is_current(self, container: WarmContainer) -> bool:
        """Whether the image's name still means the image that the container was made from."""
        image = await self.image(container.place.key.blueprint.image or "")
        if image is not None and image.id == container.image.id:
            return True
        self.pool.drop(lambda other: other.image.id == container.image.id)
        return False

    async def image(self, reference: str) -> ImageFacts | None:
        """What the daemon means by that name now; None where it has no such image, or does not say."""
        found: Mapping[str, Any] | None = None
        if self._lookup is not None:
            try:
                found = await self._lookup.image(reference)
            except (ConnectionLost, Refusal, OSError, TimeoutError) as exc:
                logger.debug("the daemon does not tell what {} is: {}", reference, exc)
        return None if found is None else ImageFacts.of(found)

    async def start(self, key: DockerKey) -> WarmContainer:
        """See `WarmCalls.start`."""
        blueprint = key.blueprint
        image = await self.image(blueprint.image or "")
        if image is None:
            raise ImageError(f"The image {blueprint.image} is not there.")
        place = WarmPlace(key)
        container = self._own.begin()
        stream: AttachedStream | None = None
        done = False
        try:
            await place.make()
            deadline = time.time() + WAITER_PATIENCE + blueprint.limits.timeout + REPORT_GRACE
            config = waiting_config(
                place.blueprint,
                self._init,
                Staging(place.files, place.artifacts, room=place.room),
                waiting_labels(self._own.server, blueprint, deadline),
                WAITER_PATIENCE,
                runtime=self._settings.engines.docker.runtime,
            )
            # By its id: the name may come to mean another image between the question and this.
            with anyio.fail_after(CONTAINER_START_TIMEOUT):
                await self._caches.ensure(self._daemon, blueprint, image.id)
                await container.create(self._daemon, {**config, "Image": image.id})
                await self._init.put(self._daemon, container.id)
                stream = await self._daemon.attach(container.id, stdin=True)
                await self._daemon.start(container.id)
                waiter = Waiter(AttachedChannel(stream))
                await waiter.greet()
            done = True
            return WarmContainer(self._daemon, container, waiter, place, image)
        finally:
            if not done:
                with anyio.CancelScope(shield=True):
                    if stream is not None:
                        await stream.aclose()
                    await container.remove(self._daemon)
                    await place.remove()
