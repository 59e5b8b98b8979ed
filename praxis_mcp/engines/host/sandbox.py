"""Images without a daemon: an OCI image's file system under bubblewrap, a few milliseconds a call, as any user.

A sandbox maps one user only: whatever name and numbers a command has inside, on the host it is the user who started the
server, without any privilege. Files that it leaves in mounts belong to that user, and all files of the image seem to be
the command's own.
"""

from __future__ import annotations

import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import anyio
import anyio.to_thread

from praxis_mcp.engines.base import (
    EngineCapabilities,
    EngineStatus,
    ExecutionContext,
    ExecutionEngine,
    ExecutionResult,
    StatusListener,
)
from praxis_mcp.engines.host.bubblewrap import Lookup, NoBubblewrap, last_line
from praxis_mcp.engines.host.cgroups import CGROUP_REMOVE_TIMEOUT, find_cgroups
from praxis_mcp.engines.host.launcher import find_sandbox
from praxis_mcp.engines.host.process import Launch, run_process
from praxis_mcp.engines.host.sandbox_images import SandboxImages
from praxis_mcp.engines.host.sandbox_run import Layouts, SandboxRun, Tools
from praxis_mcp.engines.host.sandbox_view import LAYER_SIZE, Places
from praxis_mcp.engines.output import StreamCollector
from praxis_mcp.engines.running import Finished, run_command
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ImageError
from praxis_mcp.plans.model import Blueprint, Capability, Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.owners import kill_orphans
from praxis_mcp.support.praxis_init import join_words, praxis_init_path
from praxis_mcp.support.processes import MarkedTree
from praxis_mcp.support.scratch import Scratch, sweep_scratch
from praxis_mcp.support.tasks import BackgroundTasks

OVERLAY_PROBE_TIMEOUT = 4.0
"""Seconds for trying out a writable root."""
_OVERLAY_MARK = "PRAXIS_OVERLAY_PROBE"

_ALWAYS = frozenset(
    {
        Capability.IMAGES, Capability.TIMEOUT, Capability.NETWORK_NONE, Capability.NETWORK_HOST,
        Capability.READ_ONLY_ROOT, Capability.USER, Capability.DROP_CAPABILITIES, Capability.MOUNTS,
        Capability.WRITABLE_MOUNTS, Capability.CACHE_DIRS, Capability.STDIN, Capability.FILES, Capability.ARTIFACTS,
    }
)  # fmt: skip
_NO_PRIVILEGE = "a sandbox has no privileges to give"
_NO_BRIDGE = "a sandbox has no network of its own, only the host's: set policy.host_network: true to allow that"


class SandboxExecutionEngine(ExecutionEngine):
    """Runs tools in images, without a daemon.

    Read-only root (or a writable layer of the call's own), private /tmp, no capabilities, no new privileges, a filter
    on system calls, namespaces of every kind; limits by cgroups where this user may make them.
    """

    name: ClassVar[str] = "sandbox"
    never: ClassVar[frozenset[Capability]] = frozenset({Capability.PRIVILEGED})

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self.images = SandboxImages(self.settings)
        self._tools = Lookup(lambda: _find_tools(self.settings.engines.sandbox.launcher))
        self._layouts: Layouts = {}
        self._background = BackgroundTasks()

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        """See `ExecutionEngine.run`. The plan's timeout counts from the tool's start; a pull has a bound of its own."""
        began = time.perf_counter()
        tools = await self._found()
        named = await self.images.ensure(str(plan.blueprint.image), context.on_status)

        async def command(artifacts: Path | None) -> Finished:
            async with self.images.use(named.image), AsyncExitStack() as holds:
                caches = ()
                if plan.blueprint.cache_dirs:
                    caches = await anyio.to_thread.run_sync(self._caches, plan.blueprint, holds)
                places = Places(artifacts, caches)
                run = SandboxRun(plan, context, named.image, tools, places, self._layouts, self._background)
                return replace(await run.run(), image=named.pinned)

        return await run_command(self, plan, context, command, began=began, isolation=tools.maker.name)

    async def prepare(self, blueprint: Blueprint, on_status: StatusListener | None = None) -> None:
        """Bring the image into the store."""
        await self.images.ensure(str(blueprint.image), on_status)

    async def get_capabilities(self) -> EngineCapabilities:
        """See the base.

        Raises:
            EngineUnavailable: nothing makes sandboxes here.
        """
        tools = await self._found()
        enforces = _ALWAYS | tools.cgroups.enforces
        notes = {Capability.PRIVILEGED: _NO_PRIVILEGE, **tools.cgroups.notes}
        if tools.no_overlay is None:
            enforces |= {Capability.WRITABLE_ROOT}
        else:
            notes[Capability.WRITABLE_ROOT] = tools.no_overlay
        if self.settings.policy.host_network:
            enforces |= {Capability.NETWORK_BRIDGE}
        else:
            notes[Capability.NETWORK_BRIDGE] = _NO_BRIDGE
        return EngineCapabilities(self.name, tools.maker.name, enforces, notes)

    async def probe(self) -> EngineStatus:
        """See the base."""
        tools = await self._tools.get()
        if isinstance(tools, NoBubblewrap):
            return EngineStatus(self.name, available=False, detail=tools.reason, remedy=tools.remedy)
        try:
            place = self.images.store.directory
        except ImageError as exc:  # nowhere: other engines can still be chosen
            return EngineStatus(self.name, available=False, detail=exc.message, remedy=exc.remedy or "")
        return EngineStatus(
            self.name,
            available=True,
            version=tools.maker.title,
            detail="; ".join(filter(None, [f"images in {place}", tools.maker.note])),
        )

    async def reap(self) -> tuple[str, ...]:
        """Kill sandboxes, and remove control groups and directories, of servers that were killed before they could."""
        tools = await self._tools.get()
        if isinstance(tools, NoBubblewrap):
            return ()
        return await anyio.to_thread.run_sync(_reap, tools)

    async def cleanup(self) -> None:
        """Wait for the last of what calls have left to be removed."""
        await self._background.close(2 * CGROUP_REMOVE_TIMEOUT)

    def _caches(self, blueprint: Blueprint, holds: AsyncExitStack) -> tuple[tuple[str, Path], ...]:
        store = self.images.store
        try:
            return tuple(
                (directory, holds.enter_context(store.use_cache(blueprint.cache_key(directory))))
                for directory in blueprint.cache_dirs
            )
        except OSError as exc:
            raise ExecutionError(f"The cache directories of {blueprint.tool} cannot be made: {exc.strerror}.") from exc

    async def _found(self) -> Tools:
        tools = await self._tools.get()
        if isinstance(tools, NoBubblewrap):
            raise EngineUnavailable(f"The sandbox engine cannot be used: {tools.reason}.", remedy=tools.remedy)
        return tools


async def _find_tools(choice: Literal["auto", "own", "bubblewrap"]) -> Tools | NoBubblewrap:
    if sys.platform != "linux":
        return NoBubblewrap("it exists on Linux only", "Use Docker or Dagger.")
    maker = await find_sandbox(choice)
    if isinstance(maker, NoBubblewrap):
        return maker
    cgroups = await anyio.to_thread.run_sync(find_cgroups)
    return Tools(maker, await why_no_overlay(), cgroups)


async def why_no_overlay() -> str | None:
    """Try out an overlay as a writable root; why there is none, if there is none."""
    init = praxis_init_path() if sys.platform == "linux" else None
    if init is None:
        return "praxis-init is missing"
    try:
        scratch = await anyio.to_thread.run_sync(Scratch.make)
    except OSError as exc:
        return f"a directory to try it out in cannot be made ({exc.strerror})"
    try:
        for name in ("rootfs", "layer"):
            await anyio.Path(scratch.path, name).mkdir()
        mark = str(scratch.path)
        words = [*join_words(str(init), overlay=(scratch.path, LAYER_SIZE)), str(init), "--version"]
        async with StreamCollector("stdout", keep=4096) as out, StreamCollector("stderr", keep=4096) as err:
            ended = await run_process(
                Launch(tuple(words), {_OVERLAY_MARK: mark}),
                lambda process: MarkedTree(process, f"{_OVERLAY_MARK}={mark}"),
                timeout=OVERLAY_PROBE_TIMEOUT,
                stdout=out,
                stderr=err,
            )
    except ExecutionError as exc:
        return exc.message
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(scratch.remove)
    if ended.exit_code == 0:
        return None
    reason = last_line(err.captured.text)
    return f"the kernel lets no user namespace mount an overlay ({reason or f'exit code {ended.exit_code}'})"


def _reap(tools: Tools) -> tuple[str, ...]:
    removed = (*kill_orphans(), *tools.cgroups.reap())
    sweep_scratch()
    return removed
