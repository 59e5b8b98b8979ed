"""The section of the settings for tools in pods of a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from praxis_mcp.settings.base import Section


class Toleration(Section):
    """A taint of nodes that pods put up with (core/v1 Toleration).

    Attributes:
        key: of the taint; None, with `operator` ``Exists``, is every one.
        operator: how `value` is compared.
        value: of the taint.
        effect: of the taint; None is every one.
        toleration_seconds: how long ``NoExecute`` is put up with; None is for ever.
    """

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(default=None, ge=0)


_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_DNS_NAME = r"^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"


UNENCRYPTED = (
    "engines.kubernetes.channel: direct is not encrypted: a process that can read the pod network reads arguments, "
    "variables, secrets, files and output of calls"
)
SHARED_BY_PODS = "all pods of a template share one secret, which would not keep them from one another"


class KubernetesSettings(Section):
    """How tools run on a Kubernetes cluster, each call in a pod of its own.

    Attributes:
        kubeconfig: the configuration file; None asks the environment (``KUBECONFIG``), then is ``~/.kube/config``.
        context: of that file; None is its current one, or, for a server in a pod and where no file is named, the pod's
            own account.
        namespace: where pods are made; None is the context's.
        runtime_class: RuntimeClass of the pods (gVisor, Kata); None is the cluster's usual runtime.
        service_account: account that the pods belong to; none of them gets its token.
        node_selector: labels that a node must have. ``kubernetes.io/arch`` chooses the processor; without it, it is the
            server's own.
        tolerations: see `Toleration`.
        image_pull_secrets: names of Secrets with logins to registries.
        requests: what a pod reserves on its node, by resource; never more than the contract's limit of it. Of memory
            without an entry, the limit.
        pids_limit: processes and threads that the cluster allows a pod (the kubelet's ``podPidsLimit``), which no pod
            can choose; None: nobody knows, and contracts with a `pids_limit` are refused.
        network_bridge: whether tools with ``network: bridge`` may run there: they reach the cluster's pod network, as
            far as its NetworkPolicies let them.
        channel: how a call reaches its pod. ``forward``: by port forwarding through the API server, encrypted.
            ``direct``: by TCP to the pod's address, which needs no right to forward ports and is not encrypted: a
            process that can read the pod network reads arguments, variables, secrets, files and output.
        agent_sandbox: whether agent-sandbox (kubernetes-sigs) makes the pods. ``auto``: those that wait for calls,
            where it is served, the server has the rights, and a claim succeeds; else the server makes them.
            ``require``: all of them, or the call fails; the server then needs no right to make pods. ``never``: none.
        owner: name of a ConfigMap in the namespace. With its removal the cluster removes all that the server has made
            there, also where the server cannot any more: the chart has one, since a release that is uninstalled loses
            its rights before its servers have ended.
        start_timeout: seconds from the call until its pod runs: a node that has to be added and an image that has to be
            pulled are part of it.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = Field(default=None, pattern=_DNS_LABEL)
    runtime_class: str | None = Field(default=None, pattern=_DNS_NAME)
    service_account: str | None = Field(default=None, pattern=_DNS_NAME)
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    image_pull_secrets: tuple[Annotated[str, Field(pattern=_DNS_NAME)], ...] = ()
    requests: Mapping[Literal["cpu", "memory", "ephemeral-storage"], Annotated[str, Field(pattern=_QUANTITY)]] = {
        "cpu": "10m"
    }
    pids_limit: int | None = Field(default=None, gt=0)
    network_bridge: bool = False
    channel: Literal["forward", "direct"] = "forward"
    agent_sandbox: Literal["auto", "require", "never"] = "auto"
    owner: str | None = Field(default=None, pattern=_DNS_NAME)
    start_timeout: float = Field(default=120, gt=0, le=3600)

    @model_validator(mode="after")
    def _check_channel(self) -> Self:
        if self.agent_sandbox == "require" and self.channel == "direct":
            raise ValueError(
                f"agent_sandbox: require does not go with channel: direct ({SHARED_BY_PODS}); write channel: forward"
            )
        return self

    @property
    def caution(self) -> str:
        """What is unsafe about what was chosen; empty: nothing."""
        return UNENCRYPTED if self.channel == "direct" else ""
