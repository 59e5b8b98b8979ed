"""The sandbox that stands in for Docker, as a case of the conformance suite: whatever may run there does, with the
image that it takes from the daemon, and the rest runs on Docker. The results are to be Docker's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.execution.selection import Decision, EngineSelector
from praxis_mcp.execution.spill import Spilling, Standby
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from tests.engines.docker.case import DockerCase
from tests.engines.host.sandbox_case import shared_store
from tests.kit.until import until


class Registry(EngineRegistry):
    """The two engines."""

    def __init__(self, docker: ExecutionEngine, sandbox: ExecutionEngine) -> None:
        super().__init__(docker.settings)
        self._engines = {"docker": docker, "sandbox": sandbox}


class SpillingEngine(DockerSDKExecutionEngine):
    """Runs in the sandbox what may run there.

    Attributes:
        stayed: why the last call ran on Docker; empty where it did not.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.sandbox = SandboxExecutionEngine(settings)
        registry = Registry(self, self.sandbox)
        self.spilling = Spilling(registry, EngineSelector(registry), enabled=True)
        self.stayed = ""

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        standby = await self._standby(plan)
        self.stayed = standby.reason
        if standby.engine is None:
            return await self.run_here(plan, context)
        result = await self.sandbox.run(plan, replace(context, image=standby.image))
        assert (result.engine, result.isolation) == ("sandbox", "praxis-init")
        return replace(result, engine=self.name, isolation="container")

    async def run_here(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        """Run it on Docker, whatever the sandbox could do."""
        return await super().run(plan, context)

    async def _standby(self, plan: Plan) -> Standby:
        decision = Decision("docker", (), await self.get_capabilities())
        standby = await self.spilling.find(plan, decision)
        if "does not have its image" not in standby.reason:
            return standby

        async def found() -> Standby | None:
            standby = await self.spilling.find(plan, decision)
            return standby if standby.engine is not None else None

        standby = await until(found)
        assert standby is not None
        return standby

    async def cleanup(self) -> None:
        await self.sandbox.cleanup()
        await super().cleanup()


class DockerSpilledCase(DockerCase):
    name = "docker-spilled"
    bulk = 2_000_000
    marks = (pytest.mark.docker, pytest.mark.sandbox, pytest.mark.native)

    def settings(self, **values: Any) -> Settings:
        engines = {"order": ["docker", "sandbox"], "sandbox": {"store": shared_store(), "launcher": "own"}}
        return Settings(engines=engines, warm={"enabled": False}, **values)  # pyright: ignore[reportArgumentType]

    def engine(self, settings: Settings) -> ExecutionEngine:
        return SpillingEngine(settings)


CASE = DockerSpilledCase()
