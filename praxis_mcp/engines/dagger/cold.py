"""A call that runs from the beginning: in one query, bounded in time, its output collected when it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.dagger.errors import no_answer
from praxis_mcp.engines.dagger.exec import CallRequest, Outcome, Stream, run_call
from praxis_mcp.engines.dagger.images import STDERR, STDOUT
from praxis_mcp.engines.dagger.logs import PieceListener
from praxis_mcp.engines.dagger.mounts import Upload
from praxis_mcp.engines.dagger.query import Field, chain
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.mounts.write_back import Changes
from praxis_mcp.engines.output import Captured, OutputListener, StreamCollector, StreamName
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished
from praxis_mcp.plans.model import Plan
from praxis_mcp.plans.secrets import MaskedStream, Masker
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import DEFAULT_KILL_AFTER, Ended, EndKind


@dataclass(frozen=True, slots=True)
class CallResult:
    """A call that came to an end, and what of it is in the engine still.

    Attributes:
        done: its end and output.
        uploads: the mounts that it had.
        container: id of the container as the command left it; empty where there is none, or nobody needs it.
        changes: of each writable directory, by target.
    """

    done: Finished
    uploads: Sequence[Upload]
    container: str = ""
    changes: Mapping[str, Changes] = field(default_factory=dict)


async def run_cold(session: Session, request: CallRequest, context: ExecutionContext, grace: float) -> CallResult:
    """Run a call.

    Args:
        session: where the base container is.
        request: the call.
        context: see `ExecutionContext`.
        grace: seconds in addition to the call's own timeout.

    Raises:
        QueryFailed: the engine does not give the output.
        CommandNotFound, ExecutionError: see `run_call`.
    """
    live = LiveOutput(request.plan, context.on_output) if context.on_output is not None else None
    if live is not None:
        context = replace(context, on_output=live.write_rest)
    context.phases.enter(Phase.RUN)
    outcome = await _run(session, request, live.write if live else None, grace)
    context.phases.enter(Phase.COLLECT)
    stdout, stderr = await collect_streams(session, outcome, request.plan, context, request.scratch)
    done = Finished(outcome.end, stdout, stderr, request.base.image.name)
    return CallResult(done, request.uploads, outcome.container, outcome.changes)


async def _run(session: Session, request: CallRequest, listener: PieceListener | None, grace: float) -> Outcome:
    fixed = request.plan.blueprint
    timeout, fresh = fixed.limits.timeout, not fixed.pure
    if not request.base.has_init:
        # Nothing inside ends the tool: leaving the scope closes the request, and Dagger kills by SIGKILL.
        with anyio.move_on_after(timeout):
            return await run_call(session, request, fresh=fresh, listener=listener)
        nothing = Stream(0, "", True)
        return Outcome(Ended(EndKind.TIMEOUT), nothing, nothing, "", {})
    bound = timeout + DEFAULT_KILL_AFTER + grace
    try:
        with anyio.fail_after(bound):
            began = time.perf_counter()
            outcome = await run_call(session, request, fresh=fresh, listener=listener)
            if outcome.end.timed_out and not fresh and time.perf_counter() - began < timeout:
                # Dagger remembers how a pure call ended, be it by the deadline: that is not an answer to keep.
                return await run_call(session, request, fresh=True, listener=listener)
            return outcome
    except TimeoutError as exc:
        raise no_answer(fixed.tool, bound, grace) from exc


MAX_FETCHED = 1024**3
"""Bytes of a stream up to which it is fetched; of a longer one only the beginning is kept."""

_EXPORT_PIECE = 1024 * 1024


class LiveOutput:
    """Passes output on while the command runs, secrets masked, and the rest of it at the end.

    What came while it ran may lack pieces (see `dagger.logs`); then the rest overlaps with it.
    """

    def __init__(self, plan: Plan, listener: OutputListener) -> None:
        self._listener = listener
        self._masked = {name: MaskedStream(Masker(plan.call.secrets)) for name in ("stdout", "stderr")}
        self._passed_on = {"stdout": 0, "stderr": 0}

    def write(self, name: StreamName, data: bytes) -> None:
        """The next piece, while the command runs."""
        masked = self._masked[name].feed(data)
        if masked:
            self._passed_on[name] += len(masked)
            self._listener(name, masked)

    def write_rest(self, name: StreamName, data: bytes) -> None:
        """The next piece of the whole stream, masked; passed on as far as it is new."""
        known = min(self._passed_on[name], len(data))
        self._passed_on[name] -= known
        if data[known:]:
            self._listener(name, data[known:])


async def collect_streams(
    session: Session, outcome: Outcome, plan: Plan, context: ExecutionContext, scratch: Path
) -> tuple[Captured, Captured]:
    """Both streams, secrets masked; what the answer could not hold is fetched as a file."""
    streams = {"stdout": outcome.stdout, "stderr": outcome.stderr}
    large = {name: scratch / name for name, item in streams.items() if not item.whole and item.size <= MAX_FETCHED}
    if large:
        places = {"stdout": STDOUT, "stderr": STDERR}
        exports = [
            Field("file", {"path": places[name]}, (Field("export", {"path": str(file)}),), name)
            for name, file in large.items()
        ]
        await session.query(chain([Field("loadContainerFromID", {"id": outcome.container})], *exports))
    async with context.collectors(plan) as (stdout, stderr):
        await _collect(stdout, outcome.stdout, large.get("stdout"))
        await _collect(stderr, outcome.stderr, large.get("stderr"))
    return (
        _captured(stdout, outcome.stdout, "stdout" in large),
        _captured(stderr, outcome.stderr, "stderr" in large),
    )


async def _collect(collector: StreamCollector, stream: Stream, file: Path | None) -> None:
    if file is None:
        await collector.write(stream.text.encode())
        return
    async with await anyio.open_file(file, "rb") as opened:
        while piece := await opened.read(_EXPORT_PIECE):
            await collector.write(piece)


def _captured(collector: StreamCollector, stream: Stream, was_fetched: bool) -> Captured:
    if stream.whole or was_fetched:
        return collector.captured
    logger.warning("a stream of {} bytes is more than is fetched; its beginning is kept", stream.size)
    return replace(collector.captured, total=stream.size)
