"""What the API server is asked to create where agent-sandbox makes the pods (kubernetes-sigs, v1beta1), and whether a
pod that it gave is what was asked for; no I/O here.

Its controller holds the pods of a SandboxWarmPool ready, made by a SandboxTemplate, and gives one to a SandboxClaim: as
a Sandbox, which owns the pod, and which the claim then owns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeGuard

from praxis_mcp.engines.kubernetes.spec import MANAGED_BY, MANAGER, SERVER_LABEL, quantity

CLAIM_GROUP, SANDBOX_GROUP = "extensions.agents.x-k8s.io", "agents.x-k8s.io"
SANDBOX_VERSION = "v1beta1"
POD_NAME_ANNOTATION = f"{SANDBOX_GROUP}/pod-name"
"""Of a Sandbox: its pod's name, where that is not its own."""
FINISHED_FOR = 60
"""Seconds for which a claim stays whose pod has ended: a net below its removal by this server, which first asks the pod
whether it ran out of memory."""
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_Path = tuple[str, ...]


def sandbox_template(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The specification of a SandboxTemplate.

    Args:
        pod: the body of the request that would create one pod (`spec.pod_spec`).
    """
    metadata = pod["metadata"]
    return {
        "podTemplate": {
            "metadata": {"labels": metadata["labels"], "annotations": metadata["annotations"]},
            "spec": pod["spec"],
        },
        "service": False,
        # Else it brings a policy, and name servers, of the controller's own. Ours go by the pods' labels.
        "networkPolicyManagement": "Unmanaged",
        "envVarsInjectionPolicy": "Disallowed",
    }


def sandbox_pool(template: str, replicas: int) -> dict[str, Any]:
    """The specification of a SandboxWarmPool.

    Args:
        template: name of the SandboxTemplate.
        replicas: pods that it holds ready.
    """
    return {"replicas": replicas, "sandboxTemplateRef": {"name": template}}


def sandbox_claim(pool: str, until: float) -> dict[str, Any]:
    """The specification of a SandboxClaim. Without variables: they would be in the API, and force a fresh start.

    Args:
        pool: name of the SandboxWarmPool.
        until: when it is removed at the latest, in seconds since the epoch by the API server's clock.
    """
    lifecycle = {
        "shutdownTime": timestamp(until),
        "shutdownPolicy": "Delete",
        "ttlSecondsAfterFinished": FINISHED_FOR,
    }
    return {"warmPoolRef": {"name": pool}, "lifecycle": lifecycle}


def sandbox_object(
    kind: str, name: str, server: str, owner: Mapping[str, Any], spec: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of the request that creates an object of agent-sandbox.

    Args:
        kind: ``SandboxTemplate``, ``SandboxWarmPool``, ``SandboxClaim``.
        server: this server's id.
        owner: the reference to what owns it (meta/v1 OwnerReference).
    """
    return {
        "apiVersion": f"{CLAIM_GROUP}/{SANDBOX_VERSION}",
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {MANAGED_BY: MANAGER, SERVER_LABEL: server},
            "ownerReferences": [dict(owner)],
        },
        "spec": dict(spec),
    }


def timestamp(seconds: float) -> str:
    """A Time of Kubernetes (meta/v1).

    Args:
        seconds: since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def made_at(item: Mapping[str, Any]) -> float:
    """When an object was made, in seconds since the epoch by the API server's clock.

    Raises:
        ValueError: it does not say so.
    """
    return datetime.fromisoformat(str(item["metadata"].get("creationTimestamp"))).timestamp()


def is_name(text: Any) -> TypeGuard[str]:
    """Whether this can be an object's name: what stands in a status may be anything, and becomes part of a path."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def bound_sandbox(claim: Mapping[str, Any]) -> str:
    """The name of the Sandbox that a claim was given; empty where it was given none yet."""
    name = ((claim.get("status") or {}).get("sandbox") or {}).get("name")
    return name if is_name(name) else ""


def why_not_bound(claim: Mapping[str, Any]) -> str:
    """What the controller says of a claim that it has given no pod; empty where it says nothing."""
    ready = _unready(claim)
    return ": ".join(str(ready[part]) for part in ("reason", "message") if ready.get(part))[:300]


def lacks_its_pool(claim: Mapping[str, Any]) -> bool:
    """Whether the controller does not know the SandboxWarmPool that a claim names, or that pool's template."""
    return _unready(claim).get("reason") in ("WarmPoolNotFound", "TemplateNotFound")


def _unready(claim: Mapping[str, Any]) -> Mapping[str, Any]:
    conditions = (claim.get("status") or {}).get("conditions") or []
    unready = (each for each in conditions if each.get("type") == "Ready" and each.get("status") != "True")
    return next(unready, {})


def is_controlled_by(item: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    """Whether an object is its owner's (meta/v1 OwnerReference with `controller`)."""
    uid = owner["metadata"].get("uid")
    return any(
        each.get("controller") is True and each.get("uid") == uid
        for each in item["metadata"].get("ownerReferences") or []
    )


# --- whether a pod is what its template says --------------------------------------------------------------------------

_FREE: frozenset[_Path] = frozenset(
    {
        ("nodeName",), ("schedulerName",), ("priority",), ("priorityClassName",), ("preemptionPolicy",), ("overhead",),
        ("tolerations",), ("imagePullSecrets",), ("serviceAccount",), ("containers", "terminationMessagePolicy"),
    }
)  # fmt: skip
"""What a cluster adds to pods by itself, and what lets a tool do no more than it may: the scheduler's, LimitRanges',
RuntimeClasses' and service accounts'."""
_RESOURCES: frozenset[_Path] = frozenset(
    {("containers", "resources", "limits"), ("containers", "resources", "requests")}
)
_OPEN: frozenset[_Path] = _RESOURCES | {("nodeSelector",)}
"""What it adds entries to, for the same reasons."""
_DEFAULTS: Mapping[_Path, Any] = {
    ("dnsPolicy",): "ClusterFirst",
    # What is there when the container ends is in the pod's status: it might be a file of the call.
    ("containers", "terminationMessagePath"): "/dev/termination-log",
    ("serviceAccountName",): "default",
    ("volumes", "projected", "defaultMode"): 0o644,
}
"""What an API server writes where nothing was."""
_OMITTED: Mapping[_Path, Any] = {("containers", "volumeMounts", "readOnly"): False}
"""What it leaves out."""


_STEERING = (
    "container.apparmor.security.beta.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/",
    "dev.gvisor.", "io.containerd.", "io.katacontainers.", "io.kubernetes.cri-o.", "k8s.v1.cni.cncf.io/networks",
    "run.oci.", "v1.multus-cni.io/",
)  # fmt: skip
"""What annotations begin with by which a pod tells its runtime, or the network's plugin, how to run it. Others may be
there: controllers and plugins note there what they have done."""


def steering_annotation(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The name of an annotation that changes how a pod is run, and that its template does not have; empty: none.

    Args:
        wanted, found: the metadata of both.
    """
    own = wanted.get("annotations") or {}
    others = [name for name, text in (found.get("annotations") or {}).items() if own.get(name) != text]
    return next((name for name in sorted(others) if name.startswith(_STEERING)), "")


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What of a pod's specification is not as its template has it, though it matters, as the field; empty: nothing.
    Values are not shown: those of a stranger's pod may be secrets.

    Args:
        wanted, found: core/v1 PodSpec.
    """
    return _of_mappings(wanted, found, (), "")


def _of_mappings(wanted: Mapping[str, Any], found: Mapping[str, Any], path: _Path, field: str) -> str:
    for key in sorted({*wanted, *found}):
        here, name = (*path, key), f"{field}.{key}" if field else key
        if key not in wanted:
            is_default = found[key] in (None, "", [], {}) or (here in _DEFAULTS and _DEFAULTS[here] == found[key])
            if is_default or here in _FREE or here in _OPEN or path in _OPEN:
                continue
            return name
        if key not in found:
            if wanted[key] in ([], {}) or _OMITTED.get(here) == wanted[key]:
                continue
            return name
        if differs := _of_values(wanted[key], found[key], here, name):
            return differs
    return ""


def _of_values(wanted: Any, found: Any, path: _Path, field: str) -> str:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return _of_mappings(wanted, found, path, field)
    if isinstance(wanted, Sequence) and not isinstance(wanted, str) and isinstance(found, list):
        return _of_lists(wanted, found, path, field)
    if path[:-1] in _RESOURCES or path == ("volumes", "emptyDir", "sizeLimit"):
        return "" if _number(wanted) == _number(found) is not None else field
    return "" if type(wanted) is type(found) and wanted == found else field


def _of_lists(wanted: Sequence[Any], found: Sequence[Any], path: _Path, field: str) -> str:
    if path in _FREE:  # more of them may be there
        return "" if all(each in found for each in wanted) else field
    for number, (one, other) in enumerate(zip(wanted, found, strict=False)):
        if differs := _of_values(one, other, path, f"{field}[{number}]"):
            return differs
    return "" if len(wanted) == len(found) else f"{field}[{min(len(wanted), len(found))}]"


def _number(text: Any) -> Decimal | None:
    try:
        return quantity(str(text))
    except (AssertionError, ArithmeticError, KeyError, TypeError):
        return None
