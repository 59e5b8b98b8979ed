"""A call in a container that is made for it: praxis-init waits in it, and the call comes over the attached stream.

So no word, variable or secret stands in the container's configuration, on the daemon's disk and for ``docker inspect``;
and the stream is a lifeline, whose end, when this server is killed or the connection is cut, ends the tool. Where
praxis-init cannot be in the container, it is attached, started, fed, read and ended from outside (`CallWithoutInit`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import anyio
import anyio.abc

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker import errors as docker_errors
from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.connections import AttachedStream, ConnectionLost, PendingExit, Refusal
from praxis_mcp.engines.docker.handover import CONTAINER_START_TIMEOUT, AttachedChannel, Handover
from praxis_mcp.engines.docker.images import DockerImages, ImageFacts
from praxis_mcp.engines.docker.spec import DockerInit
from praxis_mcp.engines.init.framing import FramingError
from praxis_mcp.engines.init.waiter import Waiter, WaiterLost
from praxis_mcp.engines.output import StreamName, Streams
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout, ImageError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import EXIT_SETUP_FAILED, Ended
from praxis_mcp.support.tasks import unwrapped

CONTAINER_KILL_TIMEOUT = 20.0
"""Seconds that a killed container may take to be reported as ended."""
DRAIN_IDLE = 5.0
"""Seconds without a byte after which output of an ended container is abandoned."""


class InitRefused(Exception):
    """The daemon, or its runtime, will not have praxis-init in the container in this way. The message has its words."""


@dataclass(slots=True)
class _Start:
    """How the container's start went, and what was found of its image meanwhile."""

    image: ImageFacts | None = None
    failure: Exception | None = None
    refusal: Exception | None = None


class ColdCall:
    """Runs a call in a container that has been created for it (`spec.waiting_config`).

    Args:
        daemon: the daemon.
        container: the container's id.
        init: the praxis-init that it begins with.
        images: looks its image up.
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
            with _translate_start_errors(self._daemon, self._plan):
                with anyio.fail_after(CONTAINER_START_TIMEOUT):
                    await self._put_init()
                    stream = await self._daemon.attach(self._container, stdin=True)
                    pending = await self._daemon.watch_exit(self._container)
                    found = await self._start()
                if found.refusal is not None:
                    self._refuse_to_start(found.refusal)
                return await self._hand_over(AttachedChannel(stream), pending, found)
        finally:
            await _close_all(stream, pending)

    async def _put_init(self) -> None:
        try:
            await self._init.put(self._daemon, self._container)
        except Refusal as exc:
            raise InitRefused(exc.explanation) from exc

    async def _start(self) -> _Start:
        found = _Start()

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

    async def _hand_over(self, channel: AttachedChannel, pending: PendingExit, found: _Start) -> Finished:
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

    def _entrypoint(self, found: _Start) -> tuple[str, ...]:
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


class CallWithoutInit:
    """Runs a created container without praxis-init to its end."""

    def __init__(self, daemon: DockerDaemon, container: str, plan: Plan, context: ExecutionContext) -> None:
        self._daemon = daemon
        self._container = container
        self._plan = plan
        self._context = context

    async def run(self, meanwhile: Callable[[], Coroutine[Any, Any, None]]) -> Finished:
        """Start the container and see it to its end, within the plan's timeout.

        Args:
            meanwhile: awaited while the container starts, which leaves time for it.

        Raises:
            ExecutionError: it could not be started, or the daemon went away; see the subclasses.
        """
        stdin = self._plan.call.stdin
        stream: AttachedStream | None = None
        pending: PendingExit | None = None
        refusal: ExecutionError | None = None
        try:
            with _translate_start_errors(self._daemon, self._plan):
                with anyio.fail_after(CONTAINER_START_TIMEOUT):
                    stream = await self._daemon.attach(self._container, stdin=stdin is not None)
                    pending = await self._daemon.watch_exit(self._container)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(meanwhile)
                        refusal = await self._start()
                    if refusal is not None:
                        raise refusal
                return await self._supervise(stream, pending)
        finally:
            await _close_all(stream, pending)

    async def _start(self) -> ExecutionError | None:
        # Returned, not raised: out of a task group it would come wrapped in a group.
        try:
            await self._daemon.start(self._container)
        except Refusal as exc:
            return docker_errors.refused(exc.explanation, self._plan)
        except ExecutionError as exc:
            return exc
        return None

    async def _supervise(self, stream: AttachedStream, pending: PendingExit) -> Finished:
        self._context.phases.enter(Phase.RUN)
        end = Ended.by_code(None)
        listening = _Listening()
        async with self._context.collectors(self._plan) as streams:
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(listening.listen, stream, streams)
                    if self._plan.call.stdin is not None:
                        tasks.start_soon(stream.feed, self._plan.call.stdin)
                    end = await self._end(pending)
                    self._context.phases.enter(Phase.COLLECT)
                    await listening.drain()
                    tasks.cancel_scope.cancel()
            if listening.broken is not None:
                logger.warning("{}: the end of its output was lost: {}", self._plan.blueprint.tool, listening.broken)
        return Finished(end, *streams.captured)

    async def _end(self, pending: PendingExit) -> Ended:
        with anyio.move_on_after(self._plan.blueprint.limits.timeout):
            return Ended.by_code(await pending.status())
        killed = await self._kill()
        with anyio.move_on_after(CONTAINER_KILL_TIMEOUT):
            # Not killed: it ended by itself at that very moment.
            return Ended.by_code(await pending.status(), timed_out=killed)
        raise EngineUnavailable(
            f"{self._plan.blueprint.tool} ran into its deadline, and the Docker daemon did not end it within "
            f"{CONTAINER_KILL_TIMEOUT:g} s.",
            remedy="A process may hang in the kernel (a dead network file system, say); see the daemon's log.",
        )

    async def _kill(self) -> bool:
        """False where it was not running any more."""
        try:
            return await self._daemon.kill(self._container)
        except Refusal as exc:
            # "tried to kill container, but did not receive an exit event": it may end yet.
            logger.warning("{}: the daemon could not kill it at once: {}", self._plan.blueprint.tool, exc.explanation)
            return True


class _Listening:
    """Output as it arrives, into its collectors."""

    def __init__(self) -> None:
        self.broken: ConnectionLost | ExecutionError | None = None
        self._ended = anyio.Event()
        self._pieces = 0

    async def listen(self, stream: AttachedStream, streams: Streams) -> None:
        """Until the streams end.

        Raises:
            ExecutionError: what arrives cannot be kept.
        """
        pieces = stream.pieces()
        try:
            while (found := await self._next(pieces)) is not None:
                self._pieces += 1
                name, piece = found
                await (streams.stdout if name == "stdout" else streams.stderr).write(piece)
        finally:
            self._ended.set()

    async def _next(self, pieces: AsyncIterator[tuple[StreamName, bytes]]) -> tuple[StreamName, bytes] | None:
        try:
            return await anext(pieces, None)
        except (ConnectionLost, ExecutionError) as exc:
            self.broken = exc
            return None

    async def drain(self) -> None:
        """The container has ended: wait for the rest of its output, as long as any arrives."""
        while not self._ended.is_set():
            before = self._pieces
            with anyio.move_on_after(DRAIN_IDLE):
                await self._ended.wait()
            if not self._ended.is_set() and self._pieces == before:
                logger.warning("the output of an ended container did not end; what came is kept")
                return


@contextmanager
def _translate_start_errors(daemon: DockerDaemon, plan: Plan) -> Iterator[None]:
    """Say of a daemon that it does not start a container in time, or that it went away.

    Raises:
        ExecutionError: one of the two; see the subclasses.
    """
    try:
        yield
    except TimeoutError as exc:
        raise ExecutionTimeout(
            f"{plan.blueprint.tool}: the Docker daemon did not start it within {CONTAINER_START_TIMEOUT:g} s.",
            remedy="The daemon may be overloaded or hung: see its log, and restart it.",
        ) from exc
    except ConnectionLost as exc:
        raise docker_errors.connection_lost(daemon.address) from exc


async def _close_all(*items: AttachedStream | PendingExit | None) -> None:
    """Close what a call holds of its container, also where the call is cancelled."""
    with anyio.CancelScope(shield=True):
        for item in items:
            if item is not None:
                await item.aclose()
