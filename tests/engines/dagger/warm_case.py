"""The Dagger engine as a case of the conformance suite, every call of which meets an exec that waits for it."""

from typing import Any

from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine
from praxis_mcp.engines.dagger.errors import QueryFailed
from praxis_mcp.engines.dagger.warm import WarmDagger
from praxis_mcp.engines.init.waiter import WaiterLost
from praxis_mcp.errors import EngineUnavailable, ImageError
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from tests.engines.dagger.case import DaggerCase


class WarmFirstEngine(DaggerExecutionEngine):
    """Has an exec made before each call, where one can be."""

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        try:
            async with self._sessions.lease() as session:
                base = await self._base_container(session, plan.blueprint, None)
                key = WarmDagger.key(session, plan, base)
                if key is not None:
                    await self._warm_execs().pool.fill(key)
        except (EngineUnavailable, ImageError, QueryFailed, WaiterLost):
            key = None
        hits = self._warm_execs().pool.metrics.hits
        result = await super().run(plan, context)
        assert key is None or self._warm_execs().pool.metrics.hits > hits, "the call went another way"
        return result


class DaggerWarmCase(DaggerCase):
    name = "dagger-warm"
    mounts_may_change = False

    def settings(self, **values: Any) -> Settings:
        # None but those that the engine above asks for.
        return super().settings(**values, warm={"max_per_tool": 0})

    def engine(self, settings: Settings) -> ExecutionEngine:
        return WarmFirstEngine(settings)


CASE = DaggerWarmCase()
