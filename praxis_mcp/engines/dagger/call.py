"""One call in a container: what is asked of the engine, in one query, and what its answer means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from praxis_mcp.engines.dagger.errors import QueryFailed, run_failed
from praxis_mcp.engines.dagger.exec import CallRequest, bring_in, exec_steps
from praxis_mcp.engines.dagger.export import changes_fields, read_changes
from praxis_mcp.engines.dagger.logs import LogTap, PieceListener
from praxis_mcp.engines.dagger.prefix import REPORT, STDERR, STDOUT
from praxis_mcp.engines.dagger.query import Field, chain, value_at
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.mounts.write_back import Changes
from praxis_mcp.engines.outcomes import ProgramSource, end_failure, start_failure
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.praxis_init import (
    EXIT_CANNOT_RUN,
    EXIT_NOT_FOUND,
    EXIT_SETUP_FAILED,
    EXIT_TIMED_OUT,
    Ended,
    EndKind,
    parse_report,
)

_INLINE = 256 * 1024
"""Bytes of a stream up to which it is asked for as text; a longer one is fetched as a file. As text it would be in
memory several times, here and in the CLI."""
_AMBIGUOUS = (EXIT_TIMED_OUT, EXIT_SETUP_FAILED, EXIT_CANNOT_RUN, EXIT_NOT_FOUND)
_STREAMS = {"out": STDOUT, "err": STDERR}
KILL_TIME = 0.5
"""Seconds after which a cancelled command is gone: Dagger takes 0.05 to kill it, and does not say when it has."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream after the command: its length, what the answer held of it, and whether that is all of it."""

    size: int
    text: str
    whole: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command that came to an end, its output still in the engine.

    Attributes:
        end: how it ended.
        stdout, stderr: see `Stream`.
        container: id of the container as the command left it; empty where the engine gives none.
        changes: of each writable directory, by target.
    """

    end: Ended
    stdout: Stream
    stderr: Stream
    container: str
    changes: Mapping[str, Changes]


async def run_call(
    session: Session, request: CallRequest, *, fresh: bool, listener: PieceListener | None = None
) -> Outcome:
    """Run a call's command to its end. Cancelling it kills the command by SIGKILL, and returns when it is gone.

    Args:
        session: where the prefix is.
        request: the call.
        fresh: whether it must not be answered from a cache.
        listener: hears what the command writes, as far as Dagger tells it while it runs.

    Raises:
        CommandNotFound: there is no such command in the image.
        ExecutionError: the engine could not run it.
    """
    try:
        steps = exec_steps(session, request, await bring_in(session, request), fresh=fresh)
        sizes = (Field("file", {"path": path}, (Field("size"),), name) for name, path in _STREAMS.items())
        wanted = (Field("id"), Field("exitCode"), *sizes, *changes_fields(request.uploads))
        answer = await _ask(session, chain(steps, *wanted), listener)
    except QueryFailed as exc:
        return _failed(request.plan, exc)
    done: Mapping[str, Any] = value_at(answer, *(step.alias or step.name for step in steps))
    end = Ended.by_code(int(done["exitCode"]))
    if request.prefix.has_init and end.exit_code in _AMBIGUOUS:
        end = await _ask_report(session, request.plan, str(done["id"])) or end
    changes = read_changes(request.uploads, done)
    container = str(done["id"])
    stdout, stderr = await _read_streams(session, container, {name: int(done[name]["size"]) for name in _STREAMS})
    return Outcome(end, stdout, stderr, container, changes)


async def _ask(session: Session, field: Field, listener: PieceListener | None) -> dict[str, Any]:
    try:
        if listener is None:
            return await session.query(field)
        tap = LogTap(listener)
        async with session.listening(tap):
            return await session.query(field, traceparent=tap.traceparent)
    except anyio.get_cancelled_exc_class():
        # The closed request makes the engine kill the command, which nothing tells when it is done.
        if not session.lost:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(KILL_TIME)
        raise


async def _read_streams(session: Session, container: str, sizes: Mapping[str, int]) -> list[Stream]:
    """What the streams hold, as far as it fits an answer."""
    asked = [
        Field("file", {"path": path}, (Field("contents"),), name)
        for name, path in _STREAMS.items()
        if 0 < sizes[name] <= _INLINE
    ]
    texts: Mapping[str, Any] = {}
    if asked:
        start = Field("loadContainerFromID", {"id": container})
        texts = value_at(await session.query(chain([start], *asked)), start.name)
    return [_stream(size, texts.get(name)) for name, size in sizes.items()]


def _stream(size: int, answer: Mapping[str, Any] | None) -> Stream:
    text = str(answer["contents"]) if answer is not None else ""
    # Bytes that are not UTF-8 arrive as U+FFFD: then it must be fetched as a file.
    return Stream(size, text, len(text.encode()) == size and "\ufffd" not in text)


async def _ask_report(session: Session, plan: Plan, container: str) -> Ended | None:
    """How a command ended whose exit code praxis-init may have made; None where that does not tell."""
    steps = [Field("loadContainerFromID", {"id": container}), Field("file", {"path": REPORT})]
    answer = await session.query(chain(steps, Field("contents")))
    end = parse_report(str(value_at(answer, steps[0].name, steps[1].name, "contents")))
    return None if end is None else started(plan, end)


def started(plan: Plan, end: Ended) -> Ended:
    """The end of a call that praxis-init has told, if the command was started.

    Raises:
        CommandNotFound: there is no such command in the image.
        ExecutionError: it was never started.
    """
    if end.kind is EndKind.SETUP_FAILED and end.step == "output":
        raise ExecutionError(
            f"{plan.blueprint.tool} ran, and its output could not all be kept in the Dagger engine (errno "
            f"{end.number}).",
            remedy="The engine's disk must have room; or have the tool write less.",
        )
    failure = end_failure(plan, end, "The Dagger engine's kernel is too old, or forbids it; choose another engine.")
    if failure is not None:
        failure.exit_code = end.exit_code
        raise failure
    return end


def _failed(plan: Plan, failure: QueryFailed) -> Outcome:
    """A command that the engine takes for failed: its exit code is above 127, or it never began."""
    said = failure.message
    code = failure.extensions.get("exitCode")
    if failure.is_exec_error and isinstance(code, int) and code >= 0:
        # Without praxis-init, or where that was killed itself: the last 100 KiB of each stream, white space at the
        # ends cut off, are all that Dagger keeps.
        kept = [str(failure.extensions.get(name, "")) for name in ("stdout", "stderr")]
        streams = [Stream(len(text.encode()), text, True) for text in kept]
        return Outcome(Ended.by_code(code), streams[0], streams[1], "", {})
    if re.search(r"exec(utable file)?:? .*not found|exec: .*no such file", said):
        raise start_failure(plan.call.argv[0], said, ProgramSource.image(plan.blueprint.image)) from failure
    raise run_failed(plan.blueprint.tool, failure) from failure
