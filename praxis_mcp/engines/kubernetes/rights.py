"""The rights that the engine needs in its namespace (RBAC), whether this server has them, and the Role that grants
them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.sandbox_spec import CLAIM_GROUP, SANDBOX_GROUP
from praxis_mcp.settings.kubernetes import KubernetesSettings


@dataclass(frozen=True, slots=True)
class Right:
    """A rule of a Role: verbs on a resource of an API group; the empty group is the core's."""

    group: str
    resource: str
    verbs: tuple[str, ...]


# A websocket is opened by GET; API servers from 1.35 on ask for create as well.
_FORWARDING = Right("", "pods/portforward", ("create", "get"))
_PODS = Right("", "pods", ("create", "delete", "get", "list", "watch"))
_RIGHTS = (
    _PODS,
    _FORWARDING,
    Right("", "configmaps", ("create", "delete", "get")),
    Right("coordination.k8s.io", "leases", ("create", "delete", "get", "list", "patch")),
)
SANDBOX_RIGHTS = (
    Right(CLAIM_GROUP, "sandboxclaims", ("create", "delete", "get", "patch", "watch")),
    Right(CLAIM_GROUP, "sandboxtemplates", ("create", "delete")),
    Right(CLAIM_GROUP, "sandboxwarmpools", ("create", "delete")),
    Right(SANDBOX_GROUP, "sandboxes", ("get",)),
)
"""What pods that agent-sandbox makes take."""


def needed_rights(options: KubernetesSettings) -> tuple[Right, ...]:
    """What the engine needs, as it is set. Those of `SANDBOX_RIGHTS` only where it cannot do without."""
    rights = [right for right in _RIGHTS if right is not _FORWARDING or options.channel == "forward"]
    if options.agent_sandbox == "require":
        rights[rights.index(_PODS)] = replace(_PODS, verbs=("get", "list", "watch"))
        rights += SANDBOX_RIGHTS
    return tuple(rights)


async def missing_rights(cluster: Cluster, rights: Sequence[Right]) -> list[str]:
    """What this server may not do, as ``create pods``.

    Args:
        cluster: the cluster.
        rights: what it needs.

    Raises:
        Refusal, ClusterLost: as the cluster's own.
    """
    wanted = [(right, verb) for right in rights for verb in right.verbs]
    denied: dict[int, str] = {}
    failures: list[Exception] = []

    async def ask(number: int, right: Right, verb: str) -> None:
        resource, _, part = right.resource.partition("/")
        attributes = {"namespace": cluster.namespace, "group": right.group, "resource": resource, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "subresource": part} if part else attributes},
        }
        try:
            answer = await cluster.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        except Exception as exc:  # noqa: BLE001 - out of the task group it would come wrapped in a group
            failures.append(exc)
            return
        if not (answer.get("status") or {}).get("allowed"):
            denied[number] = f"{verb} {right.resource}"

    async with anyio.create_task_group() as tasks:
        for number, (right, verb) in enumerate(wanted):
            tasks.start_soon(ask, number, right, verb)
    if failures:
        raise failures[0]
    return [denied[number] for number in sorted(denied)]


def role(namespace: str, rights: Sequence[Right]) -> str:
    """The Role that grants what is needed, as YAML; to be bound to whom the server is.

    Args:
        namespace: where tools run.
        rights: what is needed.
    """
    rules = [
        f'  - {{apiGroups: ["{right.group}"], resources: ["{right.resource}"], verbs: [{", ".join(right.verbs)}]}}'
        for right in rights
    ]
    head = [
        "apiVersion: rbac.authorization.k8s.io/v1",
        "kind: Role",
        f"metadata: {{name: praxis-mcp-tools, namespace: {namespace}}}",
        "rules:",
    ]
    return "\n".join([*head, *rules])
