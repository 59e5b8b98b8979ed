"""The Kubernetes engine as a case of the conformance suite, every call of which meets a pod that waits for it."""

from typing import Any

from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.engines.kubernetes.warm import WarmKubernetes
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from tests.engines.kubernetes.case import KubernetesCase, engine_settings


class WarmFirstEngine(KubernetesExecutionEngine):
    """Has a pod made before each call, where one can be."""

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        key = WarmKubernetes.key(plan, context)
        if key is None or (await self.get_capabilities()).lacks(plan):
            return await super().run(plan, context)
        pods = await self._connected()
        try:
            await pods.pool.fill(key)
        except ExecutionError:
            return await super().run(plan, context)
        hits = pods.pool.metrics.hits
        result = await super().run(plan, context)
        assert pods.pool.metrics.hits > hits, "the call went another way"
        return result


class KubernetesWarmCase(KubernetesCase):
    name = "kubernetes-warm"

    def settings(self, **values: Any) -> Settings:
        # None but those that the engine above asks for.
        options = {"engines": {"kubernetes": engine_settings()}, "warm": {"max_per_tool": 0}}
        return Settings(**{**options, **values})

    def engine(self, settings: Settings) -> ExecutionEngine:
        return WarmFirstEngine(settings)


CASE = KubernetesWarmCase()
