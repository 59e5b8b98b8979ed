"""A controller of Sandboxes, by looks at everything: small, and slow enough for tests only.

It does what agent-sandbox's own does as of 0.5.6, as far as the engine meets it: whose its objects are and what they
are called, labels and annotations of pods, which pods are given to claims, when a claim whose pool it does not know is
looked at again, a pod made again under its name where it is gone, and the ends of claims (`shutdownTime`, and
`ttlSecondsAfterFinished` after the end of their pods).
"""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc

from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.sandbox_spec import POD_NAME_ANNOTATION, made_at
from praxis_mcp.settings.kubernetes import KubernetesSettings

EVERY = 0.05
"""Seconds between looks."""
UNKNOWN_FOR = 60.0
"""Seconds until a claim is looked at again whose pool, or whose pool's template, was not known, unless a pool comes."""
CANDIDATES_FOR = 2.0
"""Seconds for which a new claim waits for a pod of its pool that is about to run."""
EVICTABLE = "cluster-autoscaler.kubernetes.io/safe-to-evict"
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
        unseen: how many claims it looks at before it sees the template of their pool.
        claims: the specification of each claim that it has seen, by name.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._options = KubernetesSettings(kubeconfig=kubeconfig, namespace=namespace)
        self.binds = True
        self.on_pod: Callable[[Object], None] = lambda pod: None
        self.on_bound: Callable[[Object], None] = lambda owner: None
        self.unseen = 0
        self.claims: dict[str, Object] = {}
        self._unknown: dict[str, tuple[float, list[str]]] = {}

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
                name = f"{pool['metadata']['name']}-{secrets.token_hex(3)[:5]}"
                await self._make_sandbox(name, _owner(pool), template, {EVICTABLE: "true"})
        for sandbox in sandboxes:
            if sandbox["metadata"]["name"] not in pods:
                await self._make_pod(sandbox)
        for claim in claims:
            name = claim["metadata"]["name"]
            self.claims[name] = claim["spec"]
            if _has_expired(claim):
                await self._cluster.delete(at(EXTENSIONS, "sandboxclaims", name))
            elif given := claim.get("status", {}).get("sandbox"):
                await self._note_end(claim, pods.get(given["name"], {}))
            elif self.binds and self._is_looked_at(name, list(pools)):
                await self._bind(claim, pools, templates, sandboxes, pods)

    def _is_looked_at(self, claim: str, pools: list[str]) -> bool:
        until, known = self._unknown.get(claim, (0.0, pools))
        return time.monotonic() >= until or not set(pools) <= set(known)

    async def _note_unknown(self, claim: str, pools: Mapping[str, Object], reason: str, message: str) -> None:
        self._unknown[claim] = (time.monotonic() + UNKNOWN_FOR, list(pools))
        condition = _condition("Ready", "False", reason, message)
        await self._report("sandboxclaims", claim, {"conditions": [condition]})

    async def _note_end(self, claim: Object, pod: Object) -> None:
        status = claim["status"]
        phase = pod.get("status", {}).get("phase")
        if phase in ("Succeeded", "Failed") and not any(each["type"] == "Finished" for each in status["conditions"]):
            conditions = [*status["conditions"], _condition("Finished", "True", f"Pod{phase}", "it has ended")]
            await self._report("sandboxclaims", claim["metadata"]["name"], {"conditions": conditions})

    async def _bind(
        self,
        claim: Object,
        pools: Mapping[str, Object],
        templates: Mapping[str, Object],
        sandboxes: list[Object],
        pods: Mapping[str, Object],
    ) -> None:
        name, wanted = claim["metadata"]["name"], claim["spec"]["warmPoolRef"]["name"]
        pool = pools.get(wanted)
        if pool is None:
            await self._note_unknown(name, pools, "WarmPoolNotFound", f'SandboxWarmPool "{wanted}" not found')
            return
        owner = _owner(claim)
        self.on_bound(owner)
        own = [each for each in sandboxes if _is_of(each, pool)]
        ready = [
            each for each in own if pods.get(each["metadata"]["name"], {}).get("status", {}).get("phase") == "Running"
        ]
        if ready:
            given = ready[0]["metadata"]["name"]
            sandboxes.remove(ready[0])
            body = {
                "metadata": {"ownerReferences": [owner]},
                "spec": {"podTemplate": {"metadata": {"annotations": {EVICTABLE: None}}}},
            }
            await self._cluster.merge(self._cluster.objects(CORE, "sandboxes", given), body)
            await self._cluster.merge(self._cluster.pods(given), {"metadata": {"annotations": {EVICTABLE: None}}})
        elif own and time.time() - made_at(claim) < CANDIDATES_FOR:
            return
        else:
            template = templates.get(pool["spec"]["sandboxTemplateRef"]["name"])
            if template is None or self.unseen > 0:
                self.unseen -= 1
                named = pool["spec"]["sandboxTemplateRef"]["name"]
                await self._note_unknown(name, pools, "TemplateNotFound", f'SandboxTemplate "{named}" not found')
                return
            given = name
            await self._make_sandbox(name, owner, template, {})
        ready_now = _condition("Ready", "True", "DependenciesReady", "Pod is Ready")
        await self._report("sandboxclaims", name, {"conditions": [ready_now], "sandbox": {"name": given}})

    async def _report(self, kind: str, name: str, status: Object) -> None:
        await self._cluster.merge(f"{self._cluster.objects(EXTENSIONS, kind, name)}/status", {"status": status})

    async def _make_sandbox(self, name: str, owner: Object, template: Object, annotations: Object) -> None:
        pod = copy.deepcopy(template["spec"]["podTemplate"])
        pod["metadata"]["annotations"] = {**pod["metadata"]["annotations"], **annotations}
        body = {
            "apiVersion": "agents.x-k8s.io/v1beta1",
            "kind": "Sandbox",
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {"podTemplate": pod},
        }
        await self._cluster.create(self._cluster.objects(CORE, "sandboxes"), body)

    async def _make_pod(self, sandbox: Object) -> None:
        name, template = sandbox["metadata"]["name"], copy.deepcopy(sandbox["spec"]["podTemplate"])
        labels = {**template["metadata"]["labels"], "agents.x-k8s.io/sandbox-name-hash": f"{hash(name) % 2**32:08x}"}
        told = ",".join(sorted(template["metadata"]["annotations"]))
        annotations = {**template["metadata"]["annotations"], "agents.x-k8s.io/propagated-annotations": told}
        metadata = {"name": name, "labels": labels, "annotations": annotations, "ownerReferences": [_owner(sandbox)]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        self.on_pod(body)
        await self._cluster.create(self._cluster.pods(), body)
        noted = {"metadata": {"annotations": {POD_NAME_ANNOTATION: name}}}
        await self._cluster.merge(self._cluster.objects(CORE, "sandboxes", name), noted)


def _condition(kind: str, status: str, reason: str, message: str) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}


def _owner(item: Object) -> Object:
    named = {"name": item["metadata"]["name"], "uid": item["metadata"]["uid"]}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], **named, "controller": True}


def _is_of(item: Object, owner: Object) -> bool:
    return any(each["uid"] == owner["metadata"]["uid"] for each in item["metadata"].get("ownerReferences", []))


def _has_expired(claim: Object) -> bool:
    lifecycle, now = claim["spec"].get("lifecycle", {}), time.time()
    ends = [datetime.fromisoformat(lifecycle[key]).timestamp() for key in ("shutdownTime",) if key in lifecycle]
    for condition in claim.get("status", {}).get("conditions", []):
        if condition["type"] == "Finished" and "ttlSecondsAfterFinished" in lifecycle:
            ended = datetime.fromisoformat(condition["lastTransitionTime"]).timestamp()
            ends.append(ended + lifecycle["ttlSecondsAfterFinished"])
    return bool(ends) and min(ends) < now
