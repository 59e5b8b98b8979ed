"""The warm calls of the engines that make sandboxes: by our own launcher, in one that waits for its call.

A call is given one only if a sandbox that were made for it now would be the same: the same steps, of the same files and
directories of the host, with the same file systems mounted in them. praxis-init itself sees, when the call comes,
whether all that it mounted is still in its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread

from praxis_mcp.engines.artifacts import adopt_artifact_directory, make_open_directory
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.cgroups import Cgroups
from praxis_mcp.engines.host.launcher import LAUNCHER_PROCESSES, OwnLauncher
from praxis_mcp.engines.host.sandboxed import Launcher, Prepare, Sandboxed
from praxis_mcp.engines.host.waiting import Ahead, HostMounts, WaitingSandbox
from praxis_mcp.engines.mounts.table import MountTable
from praxis_mcp.engines.running import Finished
from praxis_mcp.engines.warm.call import WarmCalls, WarmKey, find_cold_reason
from praxis_mcp.engines.warm.pool import WarmBudget
from praxis_mcp.plans.build import new_run_id
from praxis_mcp.plans.model import Call, Plan
from praxis_mcp.settings.sections import WarmSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.scratch import Scratch

SandboxKey = WarmKey[tuple[str, ...]]
"""The key of waiting sandboxes: the blueprint, and what else decides which sandbox a call gets."""
LayOut = Callable[[Plan, SandboxKey, Path | None], AbstractAsyncContextManager[Sandboxed]]
"""Lays a sandbox out ahead of its call, for the length of the block; given the directory for its artifacts."""


class WarmSandboxes(WarmCalls[tuple[str, ...], WaitingSandbox]):
    """The waiting sandboxes of one engine. Raises OSError where this machine does not tell what is mounted.

    Args:
        launcher: makes them.
        cgroups: make the groups that limit them.
        lay_out: see `LayOut`.
        settings: how many may wait, and for how long.
        budget: what the engine shares with others.
    """

    log = "the server's log"
    kind = "sandbox"

    def __init__(
        self,
        launcher: OwnLauncher,
        cgroups: Cgroups,
        lay_out: LayOut,
        settings: WarmSettings,
        budget: WarmBudget,
    ) -> None:
        super().__init__(settings, budget)
        self._launcher = launcher
        self._cgroups = cgroups
        self._lay_out = lay_out
        self._table = MountTable()

    @staticmethod
    def key(plan: Plan, context: ExecutionContext, *parts: str) -> SandboxKey | None:
        """The key of a plan's sandboxes; None for a plan whose calls each begin with their own."""
        fixed = plan.blueprint
        if not fixed.warm or _cold_reason(plan):
            return None
        if (fixed.artifact_dir is not None and context.directory is None) or not context.is_served():
            return None
        return WarmKey.of(plan, parts)

    async def run(
        self,
        key: SandboxKey | None,
        plan: Plan,
        context: ExecutionContext,
        prepare: Prepare,
        cold: Callable[[Prepare], Awaitable[Finished]],
    ) -> Finished:
        """Run a call in a sandbox that waits for it, or by `cold` from the beginning (see `WarmCalls.call`).

        Args:
            key: see `key`.
            plan: the call.
            context: what surrounds it.
            prepare: lays its own sandbox out, with its `Sandboxed.state`.
            cold: runs it in that.

        Raises:
            CommandNotFound, ExecutionError: as the cold path's.
        """
        laid: Sandboxed | None = None

        async def prepared() -> Sandboxed:
            return laid or await prepare()

        async def hand_over(waiting: WaitingSandbox) -> Finished | None:
            nonlocal laid
            laid = await prepare()
            made = waiting.made
            if made.sandboxed.state != laid.state:
                self.pool.drop(lambda other: other.made.sandboxed.state == made.sandboxed.state)
                return None
            own, laid = laid, None
            own.layout.close()  # a call may last
            end = await waiting.run(plan, context, own)
            if end is not None and made.artifacts is not None:
                left_out = await adopt_artifact_directory(plan, context, _place_in(made.artifacts))
                end = replace(end, left_out=left_out)
            return end

        try:
            return await self.call(key, hand_over, lambda: cold(prepared))
        finally:
            if laid is not None:
                laid.layout.close()

    async def start(self, key: SandboxKey) -> WaitingSandbox:
        """See `WarmCalls.start`."""
        ident = new_run_id()
        # As it is now: whether that is what was judged for a call is seen when the call comes.
        mounts = tuple(replace(mount, identity=None) for mount in key.blueprint.mounts)
        plan = Plan(replace(key.blueprint, mounts=mounts), Call(ident))
        artifacts = await anyio.to_thread.run_sync(_make_artifacts) if key.blueprint.artifact_dir is not None else None
        group = None
        made = None
        try:
            async with self._lay_out(plan, key, artifacts and _place_in(artifacts)) as sandboxed:
                try:
                    mounted = HostMounts(self._table, sandboxed.layout)
                    group = self._cgroups.for_run(plan, own_processes=LAUNCHER_PROCESSES)
                    ahead = Ahead(plan, sandboxed, mounted, artifacts)
                    made = await WaitingSandbox.start(self._launcher.program, ahead, group, ident)
                finally:
                    sandboxed.layout.close()
            return made
        finally:
            if made is None:
                with anyio.CancelScope(shield=True):
                    if group is not None:
                        await group.remove()
                    if artifacts is not None:
                        await anyio.to_thread.run_sync(artifacts.remove)

    async def close(self) -> None:
        """See `WarmCalls.close`."""
        await super().close()
        self._table.close()


def _cold_reason(plan: Plan) -> str:
    if not plan.blueprint.capture_output:
        return "its output is discarded (capture_output: false)"
    # Read-only in the sandbox of its call: nothing can be laid into one that is made.
    return "the call's files are laid into a sandbox of its own (bind: file)" if plan.call.files else ""


def find_cold_reason_in_sandbox(
    launcher: Launcher, warm: WarmSandboxes | None, plan: Plan, settings: WarmSettings
) -> str:
    """Why no sandbox of an engine can wait for a call; empty where one can.

    Args:
        launcher: makes the engine's sandboxes.
        warm: as `open_warm` gave it.
        plan: the call.
        settings: as `open_warm` had them.
    """
    if reason := find_cold_reason(settings, plan.blueprint) or _cold_reason(plan):
        return reason
    if not isinstance(launcher, OwnLauncher):
        return f"{launcher.name} makes no sandbox that waits"
    return "" if warm is not None else "what is mounted on this machine cannot be read"


def open_warm(
    launcher: Launcher,
    cgroups: Cgroups,
    lay_out: LayOut,
    settings: WarmSettings,
    budget: WarmBudget,
) -> WarmSandboxes | None:
    """See `WarmSandboxes`; None where nothing may wait, or can."""
    if not settings.enabled or not isinstance(launcher, OwnLauncher):
        return None
    try:
        return WarmSandboxes(launcher, cgroups, lay_out, settings, budget)
    except OSError as exc:
        logger.info("no sandbox waits for its call: what is mounted here cannot be read ({})", exc.strerror)
        return None


def _make_artifacts() -> Scratch:
    scratch = Scratch.make()
    make_open_directory(_place_in(scratch))
    return scratch


def _place_in(scratch: Scratch) -> Path:
    return scratch.path / "artifacts"
