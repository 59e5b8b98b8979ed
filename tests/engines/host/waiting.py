"""Engines every call of which meets a sandbox that waits for it, where one can."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.cgroups import Cgroups
from praxis_mcp.engines.host.launcher import OwnLauncher
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.engines.host.sandbox_run import Tools
from praxis_mcp.engines.host.sandboxed import Launcher, Prepare
from praxis_mcp.engines.host.waiting import WaitingSandbox
from praxis_mcp.engines.host.warm import SandboxKey, WarmSandboxes
from praxis_mcp.engines.init.waiter import WaiterLost
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan

WHEN_ASKED: dict[str, Any] = {"max_per_tool": 0}
"""Settings (`warm`) with which none is made but those that these engines ask for."""


class EachWaits(WarmSandboxes):
    """Has a sandbox made before each call, where one can be."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._used: list[WaitingSandbox] = []

    async def run(
        self,
        key: SandboxKey | None,
        plan: Plan,
        context: ExecutionContext,
        prepare: Prepare,
        cold: Callable[[Prepare], Awaitable[Finished]],
    ) -> Finished:
        if key is None:
            return await super().run(key, plan, context, prepare, cold)
        setattr(self.pool, "remove", self._used.append)  # noqa: B010 - for a server no call waits for that
        try:
            return await self._run(key, plan, context, prepare, cold)
        finally:
            with anyio.CancelScope(shield=True):
                while self._used:
                    await self._used.pop().discard()

    async def _run(
        self,
        key: SandboxKey,
        plan: Plan,
        context: ExecutionContext,
        prepare: Prepare,
        cold: Callable[[Prepare], Awaitable[Finished]],
    ) -> Finished:
        with suppress(ExecutionError, WaiterLost, OSError):  # the call says what is wrong
            await self.pool.fill(key)

        async def cold_only_to_fail(prepare: Prepare) -> Finished:
            await cold(prepare)
            raise AssertionError("the call went another way")

        return await super().run(key, plan, context, prepare, cold_only_to_fail)


class WaitingSandboxEngine(SandboxExecutionEngine):
    def _open_warm(self, tools: Tools) -> WarmSandboxes | None:
        assert isinstance(tools.launcher, OwnLauncher)
        return EachWaits(
            tools.launcher, tools.cgroups, lambda *given: self._lay_out(tools, *given), self.settings.warm,
            self.warm_budget,
        )  # fmt: skip


class WaitingLocalEngine(LocalExecutionEngine):
    def _open_warm(self, sandbox: Launcher, cgroups: Cgroups) -> WarmSandboxes | None:
        assert isinstance(sandbox, OwnLauncher)
        return EachWaits(
            sandbox, cgroups, self._lay_out, self.settings.warm, self.warm_budget
        )  # fmt: skip
