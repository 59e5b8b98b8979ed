"""A controller of Sandboxes, by looks at everything: small, and slow enough for tests only."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc

from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.settings.kubernetes import KubernetesSettings

EVERY = 0.05
"""Seconds between looks."""
CORE, EXTENSIONS = "apis/agents.x-k8s.io/v1beta1", "apis/extensions.agents.x-k8s.io/v1beta1"
SERVED = {
    "agents.x-k8s.io/v1beta1": ["sandboxes"],
    "extensions.agents.x-k8s.io/v1beta1": ["sandboxclaims", "sandboxtemplates", "sandboxwarmpools"],
}
"""The API groups, for the double."""
Object = dict[str, Any]


class FakeController:
    """A controller of one namespace. An async context manager: it works until its end.

    Args:
        kubeconfig, namespace: of the cluster.

    Attributes:
        binds: whether claims are given anything.
        on_pod: changes the body of a pod before it is made.
        on_bound: changes a Sandbox's reference to the claim that it is given to, before it is written.
        claims: the specification of each claim that it has seen, by name.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._options = KubernetesSettings(kubeconfig=kubeconfig, namespace=namespace)
        self.binds = True
        self.on_pod: Callable[[Object], None] = lambda pod: None
        self.on_bound: Callable[[Object], None] = lambda owner: None
        self.claims: dict[str, Object] = {}

    async def __aenter__(self) -> Self:
        self._cluster = await Cluster.connect(self._options)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(kind, error, trace)
        with anyio.CancelScope(shield=True):
            await self._cluster.close()

    async def _run(self) -> None:
        while True:
            with suppress(Refusal, ClusterLost):  # the next look may find it otherwise
                await self._reconcile()
            await anyio.sleep(EVERY)

    async def _list(self, path: str) -> list[Object]:
        found = (await self._cluster.get(path))["items"]
        return [item for item in found if "deletionTimestamp" not in item["metadata"]]

    async def _reconcile(self) -> None:
        at = self._cluster.objects
        templates = {each["metadata"]["name"]: each for each in await self._list(at(EXTENSIONS, "sandboxtemplates"))}
        pools = {each["metadata"]["name"]: each for each in await self._list(at(EXTENSIONS, "sandboxwarmpools"))}
        claims = await self._list(at(EXTENSIONS, "sandboxclaims"))
        sandboxes = await self._list(at(CORE, "sandboxes"))
        pods = {each["metadata"]["name"]: each for each in (await self._cluster.get(self._cluster.pods()))["items"]}
        for pool in pools.values():
            template = templates.get(pool["spec"]["sandboxTemplateRef"]["name"])
            own = [each for each in sandboxes if _is_of(each, pool)]
            for _ in range(pool["spec"].get("replicas", 1) - len(own) if template else 0):
                assert template is not None
                await self._make_sandbox(
                    f"{pool['metadata']['name'][:50]}-{secrets.token_hex(3)}", _owner(pool), template
                )
        for sandbox in sandboxes:
            if sandbox["metadata"]["name"] not in pods:
                await self._make_pod(sandbox)
        for claim in claims:
            self.claims[claim["metadata"]["name"]] = claim["spec"]
            if _has_expired(claim):
                await self._cluster.delete(at(EXTENSIONS, "sandboxclaims", claim["metadata"]["name"]))
            elif self.binds and not claim.get("status", {}).get("sandbox"):
                await self._bind(claim, pools, templates, sandboxes, pods)

    async def _bind(
        self,
        claim: Object,
        pools: Mapping[str, Object],
        templates: Mapping[str, Object],
        sandboxes: list[Object],
        pods: Mapping[str, Object],
    ) -> None:
        name = claim["metadata"]["name"]
        pool = pools.get(claim["spec"]["warmPoolRef"]["name"])
        if pool is None:
            missing = f"SandboxWarmPool {claim['spec']['warmPoolRef']['name']!r} not found"
            condition = {"type": "Ready", "status": "False", "reason": "WarmPoolNotFound", "message": missing}
            if claim.get("status", {}).get("conditions") != [condition]:
                await self._report(name, {"conditions": [condition]})
            return
        owner = _owner(claim)
        self.on_bound(owner)
        ready = [
            each
            for each in sandboxes
            if _is_of(each, pool) and pods.get(each["metadata"]["name"], {}).get("status", {}).get("phase") == "Running"
        ]
        if ready:
            given = ready[0]["metadata"]["name"]
            sandboxes.remove(ready[0])
            path = self._cluster.objects(CORE, "sandboxes", given)
            await self._cluster.merge(path, {"metadata": {"ownerReferences": [owner]}})
        else:
            template = templates.get(pool["spec"]["sandboxTemplateRef"]["name"])
            if template is None:
                return
            given = name
            await self._make_sandbox(name, owner, template)
        ready_now = {"type": "Ready", "status": "True", "reason": "DependenciesReady"}
        await self._report(name, {"conditions": [ready_now], "sandbox": {"name": given}})

    async def _report(self, claim: str, status: Object) -> None:
        await self._cluster.merge(self._cluster.objects(EXTENSIONS, "sandboxclaims", claim), {"status": status})

    async def _make_sandbox(self, name: str, owner: Object, template: Object) -> None:
        body = {
            "apiVersion": "agents.x-k8s.io/v1beta1",
            "kind": "Sandbox",
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {"podTemplate": template["spec"]["podTemplate"]},
        }
        await self._cluster.create(self._cluster.objects(CORE, "sandboxes"), body)

    async def _make_pod(self, sandbox: Object) -> None:
        template = copy.deepcopy(sandbox["spec"]["podTemplate"])
        metadata = {**template["metadata"], "name": sandbox["metadata"]["name"], "ownerReferences": [_owner(sandbox)]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        self.on_pod(body)
        await self._cluster.create(self._cluster.pods(), body)


def _owner(item: Object) -> Object:
    named = {"name": item["metadata"]["name"], "uid": item["metadata"]["uid"]}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], **named, "controller": True}


def _is_of(item: Object, owner: Object) -> bool:
    return any(each["uid"] == owner["metadata"]["uid"] for each in item["metadata"].get("ownerReferences", []))


def _has_expired(claim: Object) -> bool:
    until = claim["spec"].get("lifecycle", {}).get("shutdownTime")
    return until is not None and datetime.fromisoformat(until).timestamp() < time.time()
