"""A call in a container that is made for it: praxis-init waits in it, and the call comes over the attached stream.

So no word, variable or secret stands in the container's configuration, on the daemon's disk and for ``docker inspect``;
and the stream is a lifeline, whose end, when this server is killed or the connection is cut, ends the tool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker import errors as docker_errors
from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.call import (
    CONTAINER_KILL_TIMEOUT,
    CONTAINER_START_TIMEOUT,
    failures_of,
    let_go_of,
)
from praxis_mcp.engines.docker.handover import AttachedChannel, Handover
from praxis_mcp.engines.docker.images import DockerImages, ImageFacts
from praxis_mcp.engines.docker.init import DockerInit
from praxis_mcp.engines.docker.stream import AttachedStream, ConnectionLost, PendingExit, Refusal
from praxis_mcp.engines.init.framing import FramingError
from praxis_mcp.engines.init.waiter import Waiter, WaiterLost
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ExecutionError, ImageError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.praxis_init import EXIT_SETUP_FAILED


class InitRefused(Exception):
    """The daemon, or its runtime, will not have praxis-init in the container in this way. The message has its words."""


@dataclass(slots=True)
class _Beside:
    """What is found out beside the container's start."""

    image: ImageFacts | None = None
    failure: Exception | None = None
    refusal: Exception | None = None


class ColdCall:
    """Runs a call in a container that has been created for it (`spec.waiting_config`).

    Args:
        daemon: the daemon.
        container: the container's id.
        init: the praxis-init that it begins with.
        images: tells about its image.
        plan: what to run.
        context: what surrounds it.
    """

    def __init__(
        self,
        daemon: DockerDaemon,
        container: str,
        init: DockerInit,
        images: DockerImages,
        plan: Plan,
        context: ExecutionContext,
    ) -> None:
        self._daemon = daemon
        self._container = container
        self._init = init
        self._images = images
        self._plan = plan
        self._context = context

    async def run(self) -> Finished:
        """Start the container, hand the call over, and see it to its end, within the plan's timeout.

        Raises:
            InitRefused: the container does not start with praxis-init; nothing has run.
            ExecutionError: it could not be started, or the daemon went away; see the subclasses.
        """
        stream: AttachedStream | None = None
        pending: PendingExit | None = None
        try:
            with failures_of(self._daemon, self._plan):
                with anyio.fail_after(CONTAINER_START_TIMEOUT):
                    await self._put_init()
                    stream = await self._daemon.attach(self._container, stdin=True)
                    pending = await self._daemon.watch_exit(self._container)
                    found = await self._start()
                if found.refusal is not None:
                    self._refuse_to_start(found.refusal)
                return await self._hand_over(AttachedChannel(stream), pending, found)
        finally:
            await let_go_of(stream, pending)

    async def _put_init(self) -> None:
        try:
            await self._init.put(self._daemon, self._container)
        except Refusal as exc:
            raise InitRefused(exc.explanation) from exc

    async def _start(self) -> _Beside:
        found = _Beside()

        async def look() -> None:
            try:
                found.image = await self._images.facts(self._daemon, self._plan.blueprint.image or "")
            except (ExecutionError, Refusal) as exc:
                found.failure = exc

        # Kept, not raised: out of a task group they would come wrapped in a group.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            try:
                await self._daemon.start(self._container)
            except (ExecutionError, Refusal) as exc:
                found.refusal = exc
        return found

    def _refuse_to_start(self, refusal: Exception) -> NoReturn:
        if isinstance(refusal, Refusal):
            if self._init.is_named_in(refusal.explanation):
                raise InitRefused(refusal.explanation) from refusal
            raise docker_errors.refused(refusal.explanation, self._plan) from refusal
        raise refusal

    async def _hand_over(self, channel: AttachedChannel, pending: PendingExit, found: _Beside) -> Finished:
        waiter = Waiter(channel)
        try:
            with anyio.fail_after(CONTAINER_START_TIMEOUT):
                await waiter.greet()
            image = found.image
            handover = Handover(
                self._daemon, self._container, self._plan, self._context, image.digest if image is not None else None
            )
            return await handover.run(waiter, self._entrypoint(found))
        except FramingError as exc:
            raise ExecutionError(
                f"{self._tool}: its words and variables are more than Linux takes for one command: {exc}.",
                remedy="Bind large parameters to stdin or a file.",
            ) from exc
        except WaiterLost as exc:
            await self._explain(exc, channel, pending)

    def _entrypoint(self, found: _Beside) -> tuple[str, ...]:
        if not self._plan.blueprint.use_entrypoint:
            return ()
        if found.image is None:
            raise found.failure or ImageError(
                f"{self._tool}: the image {self._plan.blueprint.image} has just been removed, and its entrypoint is "
                "not known."
            )
        return found.image.entrypoint

    async def _explain(self, loss: WaiterLost, channel: AttachedChannel, pending: PendingExit) -> NoReturn:
        """Why a waiter was lost: by the code that its container ended with.

        Raises:
            ConnectionLost: the daemon does not tell, or praxis-init itself says that the way to it was cut.
        """
        code: int | None = None
        with anyio.move_on_after(CONTAINER_KILL_TIMEOUT):
            try:
                code = await pending.status()
            except Refusal as exc:  # it is gone, and with it what it ended with
                raise ConnectionLost(exc.explanation) from exc
        if code is None or (loss.may_have_run and code == EXIT_SETUP_FAILED):
            raise ConnectionLost(str(loss)) from loss
        if not loss.may_have_run:
            if channel.complaint:  # an exec of its own that failed, in the words of the runtime or of the daemon's init
                raise InitRefused(channel.complaint) from loss
            raise ExecutionError(
                f"{self._tool} could not be set up in its container, which ended with {code} before the call could be "
                "handed over.",
                remedy="Its limits may be too tight to start anything (pids_limit, memory_limit).",
            ) from loss
        raise ExecutionError(
            f"{self._tool}: its container ended before the call did, with {code}.",
            remedy="Something outside may have removed it. Call again; if it persists, see the daemon's log.",
        ) from loss

    @property
    def _tool(self) -> str:
        return self._plan.blueprint.tool
