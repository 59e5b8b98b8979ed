"""Containers that are started before their call: each fresh, for one call, and gone after it.

All that a blueprint fixes is fixed when the container is made. What varies travels to praxis-init, its PID 1, over
the attached standard input. Only daemons on a Unix socket of this machine: there, praxis-init and files can be
mounted, and whether a container still waits can be seen without asking.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread

from praxis_mcp.engines.artifacts import adopt_artifact_directory
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.caches import DockerCaches
from praxis_mcp.engines.docker.call import CONTAINER_START_TIMEOUT, CallEnd
from praxis_mcp.engines.docker.handover import Handover
from praxis_mcp.engines.docker.init import DockerInit
from praxis_mcp.engines.docker.inquiry import DockerInquiry
from praxis_mcp.engines.docker.labels import ServerIdentity, waiting_labels
from praxis_mcp.engines.docker.own import OwnContainers
from praxis_mcp.engines.docker.spec import Staging, waiting_config
from praxis_mcp.engines.docker.stream import AttachedStream, ConnectionLost, Refusal
from praxis_mcp.engines.docker.waiting import (
    AttachedChannel,
    WarmContainer,
    WarmImage,
    WarmKey,
    WarmPlace,
)
from praxis_mcp.engines.init.framing import FramingError
from praxis_mcp.engines.init.waiter import REPORT_GRACE, WAITER_PATIENCE, Waiter, WaiterLost
from praxis_mcp.engines.warm.budget import WarmBudget
from praxis_mcp.engines.warm.counts import PoolMetrics
from praxis_mcp.engines.warm.pool import WarmPool
from praxis_mcp.errors import ExecutionError, ImageError
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger


class WarmDocker:
    """The warm containers of one connection to a daemon.

    Args:
        daemon: the daemon, on a Unix socket.
        init: praxis-init for its machine.
        server: whose the containers are.
        own: knows those in use.
        caches: makes their cache volumes.
        settings: the settings.
        budget: what the engine shares with others.
    """

    def __init__(
        self,
        daemon: DockerDaemon,
        init: DockerInit,
        server: ServerIdentity,
        own: OwnContainers,
        caches: DockerCaches,
        settings: Settings,
        budget: WarmBudget,
    ) -> None:
        self._daemon = daemon
        self._caches = caches
        self._init = init
        self._server = server
        self._own = own
        self._settings = settings
        self._inquiry: DockerInquiry | None = daemon.inquiry()
        expected = (ExecutionError, Refusal, WaiterLost, ConnectionLost, TimeoutError, OSError)
        self.pool: WarmPool[WarmKey, WarmContainer] = WarmPool(settings.warm, self._make, expected, budget, _tool_of)

    @property
    def metrics(self) -> PoolMetrics:
        """See `PoolMetrics`."""
        return self.pool.metrics

    @staticmethod
    def key(plan: Plan, context: ExecutionContext) -> WarmKey | None:
        """The key of a plan's containers; None for a plan that takes the cold path always."""
        fixed = plan.blueprint
        if not fixed.warm or fixed.use_entrypoint or (fixed.artifact_dir and context.directory is None):
            return None
        if not context.is_served():
            return None
        return WarmKey(fixed, tuple(file.path for file in plan.call.files))

    @contextmanager
    def demand(self, plan: Plan, context: ExecutionContext) -> Iterator[WarmContainer | None]:
        """Around a call: a container for it, where one waits."""
        key = self.key(plan, context)
        if key is None:
            yield None
            return
        with self.pool.demand(key) as container:
            yield container

    async def run(self, container: WarmContainer, plan: Plan, context: ExecutionContext) -> CallEnd | None:
        """Run a call in its container, which is removed whatever happens; None where it surely has not run.

        Raises:
            CommandNotFound, ExecutionError: as the cold path's.
        """
        done = False
        try:
            if not container.place.has(plan.blueprint) or not await self._is_current(container):
                return None
            await container.place.write(plan)
            end = await self._call(container, plan, context)
            if end is not None and container.place.artifacts is not None:
                end.artifacts, end.left_out = await adopt_artifact_directory(plan, context, container.place.artifacts)
            done = True
            return end
        finally:
            if done:
                self.pool.remove(container)  # it is ending by itself; nobody has to wait for that
            else:
                with anyio.CancelScope(shield=True):
                    await container.discard()

    async def close(self) -> None:
        """Remove all that wait; bounded in time."""
        with anyio.CancelScope(shield=True):
            await self.pool.close()
            if self._inquiry is not None:
                await self._inquiry.aclose()

    async def _is_current(self, container: WarmContainer) -> bool:
        """Whether the image's name still means the image that the container was made from."""
        image = await self._image(container.place.key.blueprint.image or "")
        if image is not None and image.id == container.image.id:
            return True
        self.pool.drop(lambda other: other.image.id == container.image.id)
        return False

    async def _image(self, reference: str) -> WarmImage | None:
        found: Mapping[str, Any] | None = None
        if self._inquiry is not None:
            try:
                found = await self._inquiry.image(reference)
            except (ConnectionLost, Refusal, OSError, TimeoutError) as exc:
                logger.debug("the daemon does not tell what {} is: {}", reference, exc)
        if found is None:
            return None
        digests = found.get("RepoDigests") or []
        return WarmImage(str(found["Id"]), str(digests[0]) if digests else str(found["Id"]))

    async def _call(self, container: WarmContainer, plan: Plan, context: ExecutionContext) -> CallEnd | None:
        handover = Handover(self._daemon, container.id, plan, context, container.image.digest)
        try:
            return await handover.run(container.waiter)
        except FramingError:
            return None  # the cold path says so
        except WaiterLost as exc:
            if not exc.was_asked:
                return None
            raise ExecutionError(
                f"{plan.blueprint.tool}: its container ended before the call did: {exc}.",
                remedy="Something outside may have removed it. Call again; if it persists, see the daemon's log.",
            ) from exc

    async def _make(self, key: WarmKey) -> WarmContainer:
        blueprint = key.blueprint
        image = await self._image(blueprint.image or "")
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
                waiting_labels(self._server, blueprint, deadline),
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
            return WarmContainer(self._daemon, container, stream, waiter, place, image)
        finally:
            if not done:
                with anyio.CancelScope(shield=True):
                    if stream is not None:
                        await stream.aclose()
                    await container.remove(self._daemon)
                    await place.remove()


def _tool_of(key: WarmKey) -> str:
    return key.blueprint.tool
