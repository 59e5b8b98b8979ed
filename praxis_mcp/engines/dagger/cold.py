"""A call that runs from the beginning: in one query, bounded in time, its output collected when it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.dagger.call import Outcome, Stream, run_call
from praxis_mcp.engines.dagger.errors import no_answer
from praxis_mcp.engines.dagger.exec import CallRequest
from praxis_mcp.engines.dagger.logs import PieceListener
from praxis_mcp.engines.dagger.output import LiveOutput, collect_streams
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.dagger.workspace import Upload
from praxis_mcp.engines.mounts.write_back import Changes
from praxis_mcp.engines.running import Finished
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
        session: where the prefix is.
        request: the call.
        context: see `ExecutionContext`.
        grace: seconds beside the call's own timeout.

    Raises:
        QueryFailed: the engine does not give the output.
        CommandNotFound, ExecutionError: see `run_call`.
    """
    live = LiveOutput(request.plan, context.on_output) if context.on_output is not None else None
    if live is not None:
        context = replace(context, on_output=live.rest)
    started = time.perf_counter()
    outcome = await _run(session, request, live.hear if live else None, grace)
    ended = time.perf_counter()
    stdout, stderr = await collect_streams(session, outcome, request.plan, context, request.scratch)
    done = Finished(outcome.end, stdout, stderr, started, ended, request.prefix.image.name)
    return CallResult(done, request.uploads, outcome.container, outcome.changes)


async def _run(session: Session, request: CallRequest, listener: PieceListener | None, grace: float) -> Outcome:
    fixed = request.plan.blueprint
    timeout, fresh = fixed.limits.timeout, not fixed.pure
    if not request.prefix.has_init:
        # Nothing inside ends the tool: leaving the scope closes the request, and Dagger kills by SIGKILL.
        with anyio.move_on_after(timeout):
            return await run_call(session, request, fresh=fresh, listener=listener)
        nothing = Stream(0, "", True)
        return Outcome(Ended(EndKind.TIMEOUT), nothing, nothing, "", {})
    bound = timeout + DEFAULT_KILL_AFTER + grace
    try:
        with anyio.fail_after(bound):
            asked = time.perf_counter()
            outcome = await run_call(session, request, fresh=fresh, listener=listener)
            if outcome.end.timed_out and not fresh and time.perf_counter() - asked < timeout:
                # Dagger remembers how a pure call ended, be it by the deadline: that is not an answer to keep.
                return await run_call(session, request, fresh=True, listener=listener)
            return outcome
    except TimeoutError as exc:
        raise no_answer(fixed.tool, bound, grace) from exc
