"""A call handed to the praxis-init that waits in a container, warm or made for the call: the channel to it, and how the
call ended there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.connections import AttachedStream, ConnectionLost, Refusal
from praxis_mcp.engines.init.framing import WaitCall
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.engines.init.waiter import Waiter, WaiterLost, WaiterSilent, wait_call
from praxis_mcp.engines.outcomes import end_failure
from praxis_mcp.engines.output import Streams
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ExecutionError, ExecutionTimeout
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import EXIT_KILLED, Ended, EndKind

CONTAINER_START_TIMEOUT = 120.0
"""Seconds from the call (the image being there) until its tool has started."""
CONTAINER_END_TIMEOUT = 5.0
"""Seconds for a container to be reported as ended once its praxis-init has reported the end."""
_TOO_TIGHT = "Its limits may be too tight to start anything (pids_limit, memory_limit)."


class AttachedChannel:
    """The attached streams of a container as the channel to its praxis-init (see `Channel`).

    Attributes:
        complaint: the last that praxis-init, or the daemon in its place, wrote outside the channel.
    """

    def __init__(self, stream: AttachedStream) -> None:
        self._stream = stream
        self._pieces = stream.pieces()
        self.complaint = ""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """See `Channel`."""
        try:
            async for name, piece in self._pieces:
                if name == "stdout":
                    return piece
                self.complaint = piece.decode(errors="replace").strip()
                logger.debug("praxis-init says: {}", self.complaint)
        except (ConnectionLost, ExecutionError) as exc:
            raise anyio.BrokenResourceError from exc
        raise anyio.EndOfStream

    def is_silent(self) -> bool:
        """See `Channel`."""
        return self._stream.is_silent()

    async def send(self, item: bytes) -> None:
        """See `Channel`."""
        await self._stream.send(item)

    async def aclose(self) -> None:
        """Hang up: what waits or runs in the container ends."""
        await self._stream.aclose()
        await self._pieces.aclose()


class Handover:
    """One call on one waiter.

    Args:
        daemon: whose container it is.
        container: its id.
        plan: what to run.
        context: what surrounds it.
        image: the image with its digest.
    """

    def __init__(
        self, daemon: DockerDaemon, container: str, plan: Plan, context: ExecutionContext, image: str | None
    ) -> None:
        self._daemon = daemon
        self._container = container
        self._plan = plan
        self._context = context
        self._image = image

    async def run(self, waiter: Waiter, words: Sequence[str] = ()) -> Finished:
        """Have the waiter run it, to its end.

        Args:
            waiter: has said hello.
            words: go in front of the plan's own: the image's entrypoint.

        Raises:
            FramingError: the call is larger than Linux takes; it has not run.
            WaiterLost: the waiter, or the way to it, ended before the call did; see its
                `may_have_run`.
            CommandNotFound: the image has no such command.
            ExecutionError: it could not be set up.
        """
        self._context.phases.enter(Phase.RUN)
        async with self._context.collectors(self._plan) as streams:
            # For the machine that praxis-init itself was built for: an emulated image has another.
            seccomp = filter_for(self._plan.blueprint, (await waiter.greet()).machine)
            call = wait_call(self._plan, words=words, files=(), seccomp=seccomp)
            end = await self._end(waiter, call, streams)
            failure = end_failure(self._plan, end, _TOO_TIGHT)
            if failure is not None:
                raise failure
            self._context.phases.enter(Phase.COLLECT)
            if end.timed_out:
                end = replace(end, number=EXIT_KILLED)
            elif end.exit_code != 0 and self._plan.blueprint.limits.memory is not None:
                end = replace(end, out_of_memory=await ran_out_of_memory(self._daemon, self._container, self._tool))
        return Finished(end, *streams.captured, self._image)

    async def _end(self, waiter: Waiter, call: WaitCall, streams: Streams) -> Ended:
        try:
            return await waiter.run(call, self._plan.call.stdin, *streams)
        except WaiterSilent as exc:
            raise ExecutionTimeout(
                f"The Docker daemon gave no answer for {self._tool} within {exc.seconds:g} s, long past the tool's own "
                "timeout; the call was cancelled, and its container is removed.",
                remedy="Look at the daemon's log and load.",
            ) from exc
        except WaiterLost as exc:
            # Gone without a word: it was the one that the kernel killed for memory, or another did.
            limited = self._plan.blueprint.limits.memory is not None
            if exc.may_have_run and limited and await ran_out_of_memory(self._daemon, self._container, self._tool):
                return Ended(EndKind.SIGNAL, 9)
            raise

    @property
    def _tool(self) -> str:
        return self._plan.blueprint.tool


async def ran_out_of_memory(daemon: DockerDaemon, container: str, tool: str) -> bool:
    """Whether the kernel killed a process of a container for its memory limit; waits for the container to end, before
    which the daemon does not say."""
    with anyio.move_on_after(CONTAINER_END_TIMEOUT):
        while True:
            try:
                state = (await daemon.inspect(container)).get("State") or {}
            except Refusal as exc:  # another has removed it; how it ended is known all the same
                logger.warning("{}: whether it ran out of memory is unknown: {}", tool, exc.explanation)
                return False
            if not state.get("Running"):
                return bool(state.get("OOMKilled"))
            await anyio.sleep(0.01)
    return False
