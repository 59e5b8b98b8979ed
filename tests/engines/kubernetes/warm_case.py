"""The Kubernetes engine as a case of the conformance suite, every call of which meets a pod that waits for it."""

from dataclasses import replace

from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.kubernetes.warm import WarmKubernetes
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from tests.engines.kubernetes.case import KubernetesCase, SettledEngine


class WarmFirstEngine(SettledEngine):
    """Has a pod made before each call, where one can be."""

    async def run_unsettled(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        key = WarmKubernetes.key(plan, context)
        if key is None or (await self.get_capabilities()).lacks(plan):
            return await super().run_unsettled(plan, context)
        pods = await self._connected()
        try:
            await pods.pool.fill(key)
        except ExecutionError:  # the call says what is wrong
            return await super().run_unsettled(plan, context)
        # The call's own from the beginning: one that is cancelled before it takes it leaves none.
        with self.claim(plan, context) as claim:
            assert claim.begins_now, "the pod did not wait for its call"
            return await super().run_unsettled(plan, replace(context, claim=claim))


class KubernetesWarmCase(KubernetesCase):
    """Its pool makes none by itself, but keeps those that the engine above asks for."""

    name = "kubernetes-warm"

    def engine(self, settings: Settings) -> ExecutionEngine:
        return WarmFirstEngine(settings)


CASE = KubernetesWarmCase()
