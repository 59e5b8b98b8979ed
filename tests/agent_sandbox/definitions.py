"""CustomResourceDefinitions in the form of agent-sandbox's v1beta1 (as of 0.5.6), with the fields that the engine and
the controller of the tests use. API servers drop what is not among them, so that a field with a wrong name has no
effect."""

from __future__ import annotations

from typing import Any

from tests.cluster.api import Api, ApiError
from tests.kit.until import until_blocking

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "integer"}
ANYTHING: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def fields(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object with these fields."""
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def choice(*values: str) -> dict[str, Any]:
    """One of these words."""
    return {**TEXT, "enum": list(values)}


POD_TEMPLATE = fields(("spec",), metadata=ANYTHING, spec=ANYTHING)
KINDS = {
    ("agents.x-k8s.io", "Sandbox", "sandboxes"): fields(
        ("podTemplate",), podTemplate=POD_TEMPLATE, service={"type": "boolean"}
    ),
    ("extensions.agents.x-k8s.io", "SandboxTemplate", "sandboxtemplates"): fields(
        ("podTemplate",),
        podTemplate=POD_TEMPLATE,
        service={"type": "boolean"},
        networkPolicyManagement=choice("Managed", "Unmanaged"),
        envVarsInjectionPolicy=choice("Allowed", "Overrides", "Disallowed"),
    ),
    ("extensions.agents.x-k8s.io", "SandboxWarmPool", "sandboxwarmpools"): fields(
        ("sandboxTemplateRef",), replicas=NUMBER, sandboxTemplateRef=fields(("name",), name=TEXT)
    ),
    ("extensions.agents.x-k8s.io", "SandboxClaim", "sandboxclaims"): fields(
        ("warmPoolRef",),
        warmPoolRef=fields(("name",), name=TEXT),
        lifecycle=fields(
            shutdownTime={**TEXT, "format": "date-time"},
            shutdownPolicy=choice("Delete", "DeleteForeground", "Retain"),
            ttlSecondsAfterFinished=NUMBER,
        ),
        env={"type": "array", "items": ANYTHING},
    ),
}


def install(api: Api) -> None:
    """Have a cluster serve them; it may do so already."""
    for (group, kind, plural), spec in KINDS.items():
        schema = fields(spec=spec, status=ANYTHING)
        # What a status says is not changed with the rest, but for itself.
        parts = {"subresources": {"status": {}}} if kind != "SandboxTemplate" else {}
        version = {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **parts}
        name = f"{plural}.{group}"
        definition = {
            "metadata": {"name": name},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                "versions": [version],
            },
        }
        try:
            api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        except ApiError as exc:
            if exc.status != 409:
                raise
        until_blocking(lambda path=f"/apis/{group}/v1beta1/namespaces/default/{plural}": api.exists(path), every=0.1)
