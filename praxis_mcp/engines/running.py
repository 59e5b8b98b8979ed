"""What every run of a command has in common, whatever the engine: a place for its artifacts, the command, what it left
and changed (a look at writable mounts before, a look after), the result."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from praxis_mcp.engines.artifacts import collect_artifacts, make_artifact_directory
from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.output import Captured
from praxis_mcp.engines.phases import Phase
from praxis_mcp.plans.model import Guard, Mount, Plan
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import Ended
from praxis_mcp.support.rooted import HeldDirectory, identity_of, walk


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ran to its end, its output collected.

    Attributes:
        end: how it ended.
        stdout, stderr: see `Captured`.
        image: the image with its digest, where there is one.
        left_out: names of artifacts that exceed what a call may hand back, and did not reach its directory.
        changed: files in writable mounts that it changed; None where a look at them tells.
    """

    end: Ended
    stdout: Captured
    stderr: Captured
    image: str | None = None
    left_out: tuple[str, ...] = ()
    changed: tuple[Path, ...] | None = None


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
    watch = await ChangeWatch.start(plan.blueprint.mounts if watches else ())
    done = await command(artifacts)
    collected = await collect_artifacts(plan, artifacts)
    changed = await watch.changes() if done.changed is None else done.changed
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
        changed_files=changed,
        image=done.image,
    )


MAX_COMPARED_ENTRIES = 20_000
"""Entries of all writable mounts together; where there are more, no change is reported."""

_Stamp = tuple[int, int, int, int]
_State = dict[str, _Stamp]


class ChangeWatch:
    """The state of writable mounts before a call, to be compared with the state after it.

    A file counts as changed when its size, modification time, permissions or inode did. What other programs write there
    in the meantime is reported as well: nothing can tell it apart.
    """

    def __init__(self, mounts: tuple[Mount, ...], before: _State | None) -> None:
        self._mounts = mounts
        self._before = before

    @classmethod
    async def start(cls, mounts: Iterable[Mount]) -> ChangeWatch:
        """Look at the writable ones among `mounts`; costs nothing where there are none."""
        writable = tuple(mount for mount in mounts if mount.writable and mount.guard is Guard.NONE)
        return cls(writable, await anyio.to_thread.run_sync(_look, writable) if writable else {})

    async def changes(self) -> tuple[Path, ...]:
        """Files created, changed or removed since, sorted."""
        if not self._mounts or self._before is None:
            return ()
        after = await anyio.to_thread.run_sync(_look, self._mounts)
        if after is None:
            return ()
        before = self._before
        names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        return tuple(Path(name) for name in sorted(names))


def _skip(closed: OSError) -> None:
    """Changes in a directory that this server cannot read are not reported."""


def _look(mounts: tuple[Mount, ...]) -> _State | None:
    """Size, modification time and inode of every file; None where there are too many.

    No link is followed, not even above a mount: a tool may put one where a directory was, and what is where it leads
    is nobody's business.
    """
    state: _State = {}
    seen = 0
    for mount in mounts:
        root = mount.source
        place = os.path.realpath(root) if mount.identity is None else str(root)
        try:
            status = os.lstat(place)
            if stat.S_ISREG(status.st_mode):
                state[str(root)] = _stamp(status)
                continue
            top = HeldDirectory.at(place)
        except OSError:  # removed just now, closed to the server, or a link by now
            continue
        with top:
            if mount.identity not in (None, identity_of(top.status)):
                continue  # it is not what is mounted
            for path, _, (_, inner) in walk(top, on_closed=_skip):
                seen += 1
                if seen > MAX_COMPARED_ENTRIES:
                    logger.debug(
                        "more than {} entries in writable mounts: changes are not reported", MAX_COMPARED_ENTRIES
                    )
                    return None
                if not stat.S_ISDIR(inner.st_mode):
                    state[f"{root}/{path}"] = _stamp(inner)
    return state


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_size, status.st_mtime_ns, status.st_mode, status.st_ino
