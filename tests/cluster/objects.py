"""What tests make in a cluster: namespaces, pods, users with few rights."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import credentials
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.kit.until import until_blocking

Rules = Sequence[Mapping[str, Sequence[str]]]
"""As a Role has them: `{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}`."""


@contextmanager
def namespace(api: Api) -> Iterator[str]:
    """A namespace of a test's own, in which pods can be made; it goes with all that is in it."""
    name = api.post("/api/v1/namespaces", {"metadata": {"generateName": "test-"}})["metadata"]["name"]
    try:
        # Made by a controller; until then, no pod is admitted.
        until_blocking(lambda: api.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"), every=0.1)
        yield name
    finally:
        api.delete(f"/api/v1/namespaces/{name}")


def pod(name: str, *command: str, image: str = "docker.io/library/busybox:1.36", **spec: Any) -> dict[str, Any]:
    """A pod with one container.

    Args:
        spec: further fields of the pod's specification.
    """
    return {
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": image, "command": list(command), "imagePullPolicy": "Never"}],
            **spec,
        },
    }


def phase(api: Api, where: str, name: str, wanted: str) -> dict[str, Any]:
    """Wait until a pod is in a phase, `Running` or `Succeeded`, and return it.

    Args:
        where: its namespace.
    """
    found: dict[str, Any] = {}

    def reached() -> bool:
        nonlocal found
        found = api.get(f"/api/v1/namespaces/{where}/pods/{name}")
        return found["status"].get("phase") in (wanted, "Succeeded", "Failed")

    until_blocking(reached, every=0.1, what=f"{name} to be {wanted}")
    assert found["status"]["phase"] == wanted, found["status"]
    return found


def account(cluster: Cluster, api: Api, where: str, rules: Rules) -> Path:
    """The configuration of a client that has these rights in a namespace, and no others.

    Args:
        where: the namespace.
    """
    name = f"account-{secrets.token_hex(4)}"
    role = "rbac.authorization.k8s.io"
    core, rights = f"/api/v1/namespaces/{where}", f"/apis/{role}/v1/namespaces/{where}"
    metadata = {"metadata": {"name": name}}
    api.post(f"{core}/serviceaccounts", metadata)
    api.post(f"{rights}/roles", {**metadata, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": where}
    reference = {"apiGroup": role, "kind": "Role", "name": name}
    api.post(f"{rights}/rolebindings", {**metadata, "subjects": [subject], "roleRef": reference})
    request = {"spec": {"expirationSeconds": 7200}}
    token = api.post(f"{core}/serviceaccounts/{name}/token", request)["status"]["token"]
    file = cluster.place / f"{name}.kubeconfig"
    return credentials.kubeconfig(file, f"https://{cluster.address}", cluster.place / "ca.crt", token, where)
