"""What every run of a command has in common, whatever the engine: a place for its artifacts, the command, what it left
and changed (a look at writable mounts before, a look after), the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from praxis_mcp.engines.artifacts import collect_artifacts, make_artifact_directory
from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.changes import Changed, ChangeWatch
from praxis_mcp.engines.output import Captured
from praxis_mcp.engines.phases import Phase
from praxis_mcp.plans.model import Plan
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.support.praxis_init import Ended


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ran to its end, its output collected.

    Attributes:
        end: how it ended.
        stdout, stderr: see `Captured`.
        image: the image with its digest, where there is one.
        left_out: names of artifacts that exceed what a call may hand back, and did not reach its directory.
        changed: what it changed in writable mounts; None where a look at them tells.
    """

    end: Ended
    stdout: Captured
    stderr: Captured
    image: str | None = None
    left_out: tuple[str, ...] = ()
    changed: Changed | None = None


Command = Callable[[Path | None], Awaitable[Finished]]
"""Runs a plan's command; gets the directory for its artifacts, where it declares any. It tells the context's clock when
the command starts, and when it has ended."""


async def run_command(
    engine: ExecutionEngine,
    plan: Plan,
    context: ExecutionContext,
    command: Command,
    *,
    isolation: str,
    watches: bool = True,
) -> ExecutionResult:
    """Run a plan's command, and put its result together.

    Args:
        engine: who runs it.
        plan: the plan.
        context: what surrounds the run.
        command: see `Command`.
        isolation: what stands between tool and host.
        watches: whether changes in writable mounts show on this machine; else `Finished.changed` tells them.

    Raises:
        ExecutionError: the command's own, or its artifacts have no place.
    """
    context.phases.enter(Phase.START)
    artifacts = await make_artifact_directory(plan, context)
    watch = await ChangeWatch.start(plan.blueprint.mounts if watches else (), context.changes)
    done = await command(artifacts)
    collected = await collect_artifacts(plan, artifacts)
    changed = done.changed if done.changed is not None else await watch.changes(Masker(plan.call.secrets).text)
    return ExecutionResult(
        run_id=plan.call.run_id,
        engine=engine.name,
        isolation=isolation,
        exit_code=done.end.exit_code,
        stdout=done.stdout,
        stderr=done.stderr,
        timed_out=done.end.timed_out,
        out_of_memory=done.end.out_of_memory and not done.end.timed_out,
        phases=context.phases.seconds,
        artifacts=collected.taken,
        artifacts_left_out=(*done.left_out, *collected.left_out),
        changed_files=changed.paths,
        changes=changed.changes,
        image=done.image,
    )
