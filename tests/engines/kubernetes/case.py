"""The Kubernetes engine, on a cluster of this machine, as a case of the conformance suite: a pod is made for each
call."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.plans.model import Capability, Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing import EngineCase
from tests.cluster.objects import namespace
from tests.cluster.shared import shared_cluster
from tests.kit.ending import at_end
from tests.kit.until import until_blocking

STAND_INS = frozenset({"python:3.11-slim", "busybox:latest", "scratch-tool:latest"})
"""Images of tests.kit.images, which the nodes are given."""
GONE_WITHIN = 60.0
"""Seconds within which a pod is gone once its call has returned: that is not waited for."""
START_WITHIN = 240.0
"""Seconds for a pod on a busy machine."""


@cache
def own_namespace() -> str:
    """A namespace of this process's own, which goes with the process."""
    api = at_end.enter_context(shared_cluster().api())
    return at_end.enter_context(namespace(api))


def engine_settings(**more: Any) -> dict[str, Any]:
    """The engine's settings for the cluster that tests share; without agent-sandbox, which some tests have it serve."""
    own = {"kubeconfig": shared_cluster().kubeconfig, "namespace": own_namespace(), "start_timeout": START_WITHIN}
    return {**own, "agent_sandbox": "never", **more}


def objects(where: str, *kinds: str) -> list[str]:
    """The names of what an engine has made in a namespace: of its pods, and of objects of other kinds."""
    ours = {"labelSelector": "app.kubernetes.io/managed-by=praxis-mcp"}
    found: list[str] = []
    with shared_cluster().api() as api:
        for kind in kinds or ("pods",):
            group = "apis/coordination.k8s.io" if kind == "leases" else "api"
            found += [
                f"{kind}/{item['metadata']['name']}"
                for item in api.get(f"/{group}/v1/namespaces/{where}/{kind}", **ours)["items"]
            ]
    return found


class SettledEngine(KubernetesExecutionEngine):
    """Ends a call when its pod is gone, too: what looks for leftovers blocks the event loop that removes it."""

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        try:
            return await self.run_unsettled(plan, context)
        finally:
            if self._pods is not None:
                with anyio.CancelScope(shield=True):
                    await self._pods.pool._background.close(GONE_WITHIN)

    async def run_unsettled(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        return await super().run(plan, context)


class KubernetesCase(EngineCase):
    name = "kubernetes"
    marks = (pytest.mark.kubernetes, pytest.mark.native)
    bulk = 5_000_000
    mounts_may_change = False
    holds_files_only = True  # they are ConfigMaps
    writable_place = "/var/tmp"  # no pod runs as root

    @property
    def lacks(self) -> frozenset[Capability]:
        return frozenset(
            {
                Capability.BUILD,
                Capability.PRIVILEGED,
                Capability.NETWORK_HOST,
                Capability.NETWORK_BRIDGE,
                Capability.CACHE_DIRS,
                Capability.PIDS_LIMIT,
            }
        )

    def settings(self, **values: Any) -> Settings:
        options = {"engines": {"kubernetes": engine_settings()}, "warm": {"enabled": False}}
        return Settings(**{**options, **values})

    def engine(self, settings: Settings) -> ExecutionEngine:
        return SettledEngine(settings)

    def contract(self, command: Sequence[str], **fields: Any) -> ToolContract:
        image = fields.pop("image", "python:3.11-slim")
        if image in STAND_INS:
            image = shared_cluster().load_stand_in(image)
        return ToolContract.create_dagger_tool("conformance", image, list(command), **fields)

    def leftovers(self) -> list[str]:
        with suppress(AssertionError):
            until_blocking(lambda: not objects(own_namespace()), within=GONE_WITHIN, every=0.2)
        return objects(own_namespace())

    def file_binding(self, path: str) -> Binding:
        return Binding(kind=BindKind.FILE, target=path)


CASE = KubernetesCase()
