"""Commands on the host itself: the engine that needs no daemon.

In a sandbox where one can be made: the host's files read-only, a private /tmp and home, no credentials, no network
unless the contract asks. Else as a plain process, where the settings allow it; what it then cannot enforce, it says.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from praxis_mcp.engines.base import EngineCapabilities, EngineStatus, ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.host.call_directories import CallDirectories
from praxis_mcp.engines.host.cgroups import Cgroups, find_cgroups
from praxis_mcp.engines.host.launcher import find_launcher
from praxis_mcp.engines.host.local_run import LocalRun
from praxis_mcp.engines.host.sandboxed import Launcher, Lookup, NoLauncher, Sandboxed, reap_host
from praxis_mcp.engines.host.standby import Standbys
from praxis_mcp.engines.host.warm import SandboxKey, WarmSandboxes, find_cold_reason_in_sandbox, open_warm
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished, run_command
from praxis_mcp.engines.warm.pool import WarmPool
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.plans.model import Capability, Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support import praxis_init as native

_ALWAYS = frozenset(
    {
        Capability.HOST_COMMANDS,
        Capability.TIMEOUT,
        # The outside is reached through the host's own network: there is no bridge, and nothing to gain by one.
        Capability.NETWORK_BRIDGE,
        Capability.NETWORK_HOST,
        Capability.STDIN,
        Capability.ARTIFACTS,
    }
)
_IN_SANDBOX = frozenset({Capability.NETWORK_NONE, Capability.MOUNTS, Capability.WRITABLE_MOUNTS, Capability.FILES})
_LIMITS = frozenset({Capability.MEMORY_LIMIT, Capability.CPU_LIMIT, Capability.PIDS_LIMIT})
_NO_LIMIT = "; a plain process could leave the control group that would limit it"


class LocalExecutionEngine(ExecutionEngine):
    """Runs a contract's command on the host."""

    name = "local"

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        wanted = self.settings.engines.local.sandbox
        self._standbys = Standbys(self.settings.warm)
        choice = "auto" if wanted in ("require", "off") else wanted
        self._launcher = Lookup(partial(find_launcher, choice, self._standbys))
        self._cgroups: Cgroups | None = None
        self._directories = CallDirectories()
        self._warm: WarmSandboxes | None = None

    async def get_capabilities(self) -> EngineCapabilities:
        """See the base.

        Raises:
            EngineUnavailable: the settings require a sandbox, and none can be made here.
        """
        sandbox = await self._sandbox()
        if isinstance(sandbox, Launcher):
            cgroups = await self._groups()
            enforces = _ALWAYS | _IN_SANDBOX | cgroups.enforces
            return EngineCapabilities(self.name, sandbox.name, enforces, cgroups.notes)
        enforces = _ALWAYS
        why = f"needs a sandbox: {sandbox.reason}"
        notes = dict.fromkeys(_IN_SANDBOX, why) | dict.fromkeys(_LIMITS, why + _NO_LIMIT)
        if native.host_init_path() is not None:
            enforces |= {Capability.NETWORK_NONE}
            del notes[Capability.NETWORK_NONE]
        else:
            notes[Capability.NETWORK_NONE] = f"{why}, or praxis-init; or write network: host in the contract"
        return EngineCapabilities(self.name, "process", enforces, notes, frozenset({Capability.NETWORK_NONE}))

    async def probe(self) -> EngineStatus:
        """See the base."""
        try:
            sandbox = await self._sandbox()
        except EngineUnavailable as exc:
            return EngineStatus(self.name, available=False, detail=exc.message, remedy=exc.remedy or "")
        if isinstance(sandbox, Launcher):
            notes = sandbox.notes(host_network=True)
            return EngineStatus(self.name, available=True, version=sandbox.shown, detail=notes)
        return EngineStatus(
            self.name,
            available=True,
            version=f"{platform.system()} {platform.release()}",
            detail=f"plain processes, no sandbox: {sandbox.reason}",
            remedy=sandbox.remedy,
        )

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        """See the base."""
        context.phases.enter(Phase.START)
        sandbox = await self._sandbox()
        cgroups = await self._groups() if isinstance(sandbox, Launcher) else None

        async def command(artifacts: Path | None) -> Finished:
            run = LocalRun(plan, context, artifacts)
            if not isinstance(sandbox, Launcher) or cgroups is None:
                return await run.as_plain_process(self._directories)
            prepare = partial(run.prepare, self.settings)
            cold = partial(sandbox.run, plan, context, cgroups=cgroups)
            warm = self._warm = self._warm or self._open_warm(sandbox, cgroups)
            if warm is None:
                return await cold(prepare)
            # Its sandbox shows the program, which is looked for on the PATH.
            key = warm.key(plan, context, plan.call.argv[0], *filter(None, [plan.call.env.get("PATH")]))
            return await warm.run(key, plan, context, prepare, cold)

        isolation = sandbox.name if isinstance(sandbox, Launcher) else "process"
        return await run_command(self, plan, context, command, isolation=isolation)

    async def reap(self) -> tuple[str, ...]:
        """See the base."""
        return await anyio.to_thread.run_sync(reap_host, await self._groups())

    async def cleanup(self) -> None:
        """Remove what waits for calls, and wait for the last of what calls have left to be removed."""
        warm, self._warm = self._warm, None
        if warm is not None:
            await warm.close()
        await self._standbys.close()
        await self._directories.close()

    async def find_cold_reason(self, plan: Plan) -> str:
        """See the base."""
        sandbox = await self._sandbox()
        if not isinstance(sandbox, Launcher):
            return "a plain process starts at once"
        self._warm = self._warm or self._open_warm(sandbox, await self._groups())
        return find_cold_reason_in_sandbox(sandbox, self._warm, plan, self.settings.warm)

    @property
    def _warm_pool(self) -> WarmPool[Any, Any] | None:
        return self._warm.pool if self._warm is not None else None

    def _open_warm(self, sandbox: Launcher, cgroups: Cgroups) -> WarmSandboxes | None:
        settings, budget = self.settings.warm, self.warm_budget
        return open_warm(sandbox, cgroups, self._lay_out, settings, budget)

    @asynccontextmanager
    async def _lay_out(self, plan: Plan, key: SandboxKey, artifacts: Path | None) -> AsyncIterator[Sandboxed]:
        """See `LayOut`."""
        program, *path = key.session
        call = replace(plan.call, argv=(program,), env={"PATH": path[0]} if path else {})
        run = LocalRun(replace(plan, call=call), ExecutionContext(), artifacts)
        yield await run.prepare(self.settings)

    async def _groups(self) -> Cgroups:
        if self._cgroups is None:
            self._cgroups = await anyio.to_thread.run_sync(find_cgroups)
        return self._cgroups

    async def _sandbox(self) -> Launcher | NoLauncher:
        wanted = self.settings.engines.local.sandbox
        if wanted == "off":
            return NoLauncher("the settings say engines.local.sandbox: off", "Set engines.local.sandbox: auto.")
        found = await self._launcher.get()
        if wanted != "auto" and isinstance(found, NoLauncher):
            raise EngineUnavailable(
                f"The settings require a sandbox for commands on the host, and there is none: {found.reason}.",
                remedy=f"{found.remedy} Or set engines.local.sandbox: auto.",
            )
        return found
