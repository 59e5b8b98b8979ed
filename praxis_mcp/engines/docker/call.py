"""One call in a container of its own: its files staged, its end; and, where praxis-init cannot be in the container,
attached, started, fed, heard and ended from outside."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.abc
import anyio.to_thread

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker import errors as docker_errors
from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.spec import Staging
from praxis_mcp.engines.docker.stream import AttachedStream, ConnectionLost, PendingExit, Refusal
from praxis_mcp.engines.mounts.openings import with_room
from praxis_mcp.engines.output import StreamName, Streams
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout
from praxis_mcp.plans.model import CallFile, Plan
from praxis_mcp.plans.view import is_nested
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import Ended
from praxis_mcp.support.scratch import Scratch
from praxis_mcp.support.tasks import unwrapped

CONTAINER_START_TIMEOUT = 120.0
"""Seconds from the call (the image being there) until its tool has started."""
CONTAINER_KILL_TIMEOUT = 20.0
"""Seconds that a killed container may take to be reported as ended."""
DRAIN_IDLE = 5.0
"""Seconds without a byte after which output of an ended container is abandoned."""

T = TypeVar("T")


@asynccontextmanager
async def staged(plan: Plan, artifacts: Path | None) -> AsyncIterator[Staging]:
    """Put what the call needs on this machine, and take away what is not kept."""
    crowded = is_nested(plan.blueprint)
    if not plan.call.files and not crowded:
        yield Staging((), artifacts)
        return
    scratch = await _written(plan, anyio.to_thread.run_sync(Scratch.make))
    try:
        files = await _written(plan, anyio.to_thread.run_sync(_write_files, scratch.path, plan.call.files))
        room = None
        if crowded:
            room = await _written(plan, anyio.to_thread.run_sync(with_room, plan.blueprint, scratch.path))
        yield Staging(files, artifacts, room=room)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(scratch.remove)


async def _written(plan: Plan, writing: Coroutine[Any, Any, T]) -> T:
    try:
        return await writing
    except OSError as exc:
        raise ExecutionError(f"{plan.blueprint.tool}: its files cannot be written: {exc.strerror}.") from exc


def _write_files(directory: Path, files: tuple[CallFile, ...]) -> tuple[tuple[CallFile, Path], ...]:
    places: list[tuple[CallFile, Path]] = []
    for number, file in enumerate(files):
        place = directory / str(number)
        place.write_bytes(file.content)
        # Readable by the tool's user, whoever that is; the directory keeps other users of this machine out.
        place.chmod(0o444)
        places.append((file, place))
    return tuple(places)


@contextmanager
def failures_of(daemon: DockerDaemon, plan: Plan) -> Iterator[None]:
    """Says of a daemon that it does not start a container in time, or that it went away.

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
        raise docker_errors.lost(daemon.address) from exc


async def let_go_of(*items: AttachedStream | PendingExit | None) -> None:
    """Close what a call holds of its container, also where the call is cancelled."""
    with anyio.CancelScope(shield=True):
        for item in items:
            if item is not None:
                await item.aclose()


class ContainerCall:
    """Runs a created container without praxis-init to its end."""

    def __init__(self, daemon: DockerDaemon, container: str, plan: Plan, context: ExecutionContext) -> None:
        self._daemon = daemon
        self._container = container
        self._plan = plan
        self._context = context

    async def run(self, meanwhile: Callable[[], Coroutine[Any, Any, None]]) -> Finished:
        """Start the container and see it to its end, within the plan's timeout.

        Args:
            meanwhile: awaited beside the start, which leaves time for it.

        Raises:
            ExecutionError: it could not be started, or the daemon went away; see the subclasses.
        """
        stdin = self._plan.call.stdin
        stream: AttachedStream | None = None
        pending: PendingExit | None = None
        refusal: ExecutionError | None = None
        try:
            with failures_of(self._daemon, self._plan):
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
            await let_go_of(stream, pending)

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
        started = ended = time.perf_counter()
        end = Ended.by_code(None)
        listening = _Listening()
        async with self._context.collectors(self._plan) as streams:
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(listening.listen, stream, streams)
                    if self._plan.call.stdin is not None:
                        tasks.start_soon(stream.feed, self._plan.call.stdin)
                    end = await self._end(pending)
                    ended = time.perf_counter()
                    await listening.drain()
                    tasks.cancel_scope.cancel()
            if listening.broken is not None:
                logger.warning("{}: the end of its output was lost: {}", self._plan.blueprint.tool, listening.broken)
        return Finished(end, *streams.captured, started, ended)

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
