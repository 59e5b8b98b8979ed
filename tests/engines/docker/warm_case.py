"""The Docker engine as a case of the conformance suite, every call of which meets a container that waits for it."""

from contextlib import suppress
from typing import Any

from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.docker.connections import Refusal
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.engines.docker.warm import WarmDocker
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from tests.engines.docker.case import DockerCase
from tests.kit.until import until_blocking

GONE_WITHIN = 60.0
"""Seconds within which a container is gone once its call has returned: that is not waited for."""


class WarmFirstEngine(DockerSDKExecutionEngine):
    """Has a container made before each call, where one can be."""

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        await self.get_capabilities()
        key = WarmDocker.key(plan, context)
        if self._warm is None or key is None:
            return await super().run(plan, context)
        try:
            await self._warm.pool.fill(key)
        except (ExecutionError, Refusal):
            return await super().run(plan, context)
        hits = self._warm.pool.metrics.hits
        result = await super().run(plan, context)
        assert self._warm is None or self._warm.pool.metrics.hits > hits, "the call went another way"
        return result


class DockerWarmCase(DockerCase):
    name = "docker-warm"

    def settings(self, **values: Any) -> Settings:
        # None but those that the engine above asks for.
        return Settings(**values, warm={"max_per_tool": 0})  # pyright: ignore[reportArgumentType]

    def engine(self, settings: Settings) -> ExecutionEngine:
        return WarmFirstEngine(settings)

    def leftovers(self) -> list[str]:
        with suppress(AssertionError):
            until_blocking(lambda: not super(DockerWarmCase, self).leftovers(), within=GONE_WITHIN)
        return super().leftovers()


CASE = DockerWarmCase()
