"""A call that runs from the beginning: in one query, bounded in time, its output collected when it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.dagger.call import Outcome, run_call, unread_stream
from praxis_mcp.engines.dagger.errors import no_answer
from praxis_mcp.engines.dagger.exec import CallRequest
from praxis_mcp.engines.dagger.logs import PieceListener
from praxis_mcp.engines.dagger.output import LiveOutput, collect_streams
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.dagger.workspace import Upload
from praxis_mcp.engines.mounts.write_back import Changes
from praxis_mcp.engines.output import Captured
from praxis_mcp.support.init_binary import DEFAULT_KILL_AFTER


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call that came to an end, its output collected.

    Attributes:
        exit_code: 128 + signal where a signal ended it; None where it was ended by its deadline from outside.
        timed_out: its deadline passed.
        stdout, stderr: see `Captured`.
        container: id of the container as the command left it; empty where there is none, or nobody needs it.
        uploads: the mounts that it had.
        changes: of each writable directory, by target.
        ended: when the command had ended, by `time.perf_counter`.
    """

    exit_code: int | None
    timed_out: bool
    stdout: Captured
    stderr: Captured
    container: str
    uploads: Sequence[Upload]
    changes: Mapping[str, Changes]
    ended: float


async def run_cold(session: Session, request: CallRequest, context: ExecutionContext, grace: float) -> CallEnd:
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
    outcome = await _run(session, request, live.hear if live else None, grace)
    ended = time.perf_counter()
    stdout, stderr = await collect_streams(session, outcome, request.plan, context, request.scratch)
    return CallEnd(
        outcome.exit_code,
        outcome.timed_out,
        stdout,
        stderr,
        outcome.container,
        request.uploads,
        outcome.changes,
        ended,
    )


async def _run(session: Session, request: CallRequest, listener: PieceListener | None, grace: float) -> Outcome:
    fixed = request.plan.blueprint
    timeout, fresh = fixed.limits.timeout, not fixed.pure
    if not request.prefix.has_init:
        # Nothing inside ends the tool: leaving the scope closes the request, and Dagger kills by SIGKILL.
        with anyio.move_on_after(timeout):
            return await run_call(session, request, fresh=fresh, listener=listener)
        return Outcome(None, True, unread_stream(), unread_stream(), "", {})
    bound = timeout + DEFAULT_KILL_AFTER + grace
    try:
        with anyio.fail_after(bound):
            asked = time.perf_counter()
            outcome = await run_call(session, request, fresh=fresh, listener=listener)
            if outcome.timed_out and not fresh and time.perf_counter() - asked < timeout:
                # Dagger remembers how a pure call ended, be it by the deadline: that is no answer to keep.
                return await run_call(session, request, fresh=True, listener=listener)
            return outcome
    except TimeoutError as exc:
        raise no_answer(fixed.tool, bound, grace) from exc
