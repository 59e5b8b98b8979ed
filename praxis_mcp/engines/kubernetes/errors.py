"""What a cluster's refusals and a pod's troubles mean to the caller of a tool, each with its remedy: the one place
where they become errors of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal
from praxis_mcp.engines.kubernetes.states import OUT_OF_MEMORY, PodTrouble, Trouble
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout, ImageError, LimitUnsupported

_DOCTOR = "`praxis-mcp doctor` shows which rights are missing, and the Role that has them."
_DENIED = re.compile(r"denied (the )?request")
"""By an admission webhook, or by a ValidatingAdmissionPolicy."""
_RUNS_AS_ROOT = re.compile(r"runAsNonRoot", re.I)


def unreachable(address: str, reason: str) -> EngineUnavailable:
    """The API server does not answer."""
    return EngineUnavailable(
        f"The Kubernetes API server at {address or 'its address'} cannot be reached: {reason.rstrip('.')}.",
        remedy="Check that `kubectl version` works for the server's user, and engines.kubernetes.context.",
    )


def refused(refusal: Refusal, tool: str = "") -> ExecutionError:
    """The API server will not do what a call needs.

    Args:
        refusal: its answer.
        tool: whose call it was; empty: nobody's.
    """
    subject = f"{tool}: the" if tool else "The"
    text = refusal.message.rstrip(".")
    low = text.lower()
    if refusal.status == 401:
        return EngineUnavailable(
            "The Kubernetes API server does not accept this server's credentials.",
            remedy="Log in again (`kubectl version` must work for the server's user), or fix the kubeconfig.",
        )
    if "exceeded quota" in low or "must specify" in low:
        return ExecutionError(
            f"{subject} namespace's quota leaves no room for its pod: {text}.",
            remedy="Wait until other pods end, have the ResourceQuota raised, or lower the contract's limits and "
            "engines.kubernetes.requests; a quota of memory demands a memory_limit.",
        )
    if "runtimeclass" in low:
        return EngineUnavailable(
            f"{subject} cluster does not have the RuntimeClass of the settings: {text}.",
            remedy="Make it (`kubectl get runtimeclass` lists those there are), or fix "
            "engines.kubernetes.runtime_class.",
        )
    if "usage per" in low:
        return LimitUnsupported(
            f"{subject} namespace's LimitRange refuses its pod: {text}.",
            remedy="Change the contract's limits or engines.kubernetes.requests, or have the LimitRange changed.",
        )
    if "being terminated" in low:
        return EngineUnavailable(
            f"{subject} namespace is being removed: {text}.", remedy="Fix engines.kubernetes.namespace."
        )
    if "serviceaccount" in low and "not found" in low:
        return EngineUnavailable(
            f"{subject} namespace does not have the account of the settings: {text}.",
            remedy="Make it (kubectl create serviceaccount …), or fix engines.kubernetes.service_account.",
        )
    if _DENIED.search(low):
        return ExecutionError(
            f"{subject} cluster's policy refuses what a call needs: {text}.",
            remedy="Change what the policy names in the contract or in engines.kubernetes, or have the policy make an "
            "exception for the namespace.",
        )
    if "failed calling webhook" in low:
        return EngineUnavailable(
            f"{subject} cluster cannot ask its own policy: {text}.",
            remedy="An admission webhook of the cluster does not answer: have its operator look at it.",
        )
    if "podsecurity" in low or "violates" in low:
        return ExecutionError(
            f"{subject} namespace's policy refuses its pod: {text}.",
            remedy="Pods of tools meet the profile `restricted`; a policy that wants more has to make an exception, or "
            "engines.kubernetes.namespace has to be another one.",
        )
    if refusal.status == 403:
        return EngineUnavailable(f"{subject} Kubernetes API server forbids what a call needs: {text}.", remedy=_DOCTOR)
    if refusal.is_missing and "namespaces" in low:
        return EngineUnavailable(
            f"{subject} cluster does not have the namespace: {text}.",
            remedy="Make it (kubectl create namespace …), or fix engines.kubernetes.namespace.",
        )
    if refusal.is_missing and "configmaps" in low:
        return EngineUnavailable(
            f"{subject} namespace does not have the ConfigMap that is to own what the server makes: {text}.",
            remedy="Make it (kubectl create configmap …), or fix engines.kubernetes.owner.",
        )
    if refusal.status == 422:
        return LimitUnsupported(
            f"{subject} cluster refuses the pod that the contract and the settings make: {text}.",
            remedy="Fix the contract's limits, or engines.kubernetes.",
        )
    if refusal.is_passing:
        return EngineUnavailable(
            f"{subject} Kubernetes API server cannot serve requests now: {text}.", remedy="Call again a little later."
        )
    return ExecutionError(
        f"{subject} Kubernetes API server refused a request: {refusal.status} {refusal.reason}: {text}.",
        remedy="If it persists, see the API server's log: this server does not know such a refusal.",
    )


def not_running(tool: str, image: str | None, trouble: PodTrouble) -> ExecutionError:
    """Its pod will not run.

    Args:
        tool: whose it is.
        image: of the contract.
        trouble: why.
    """
    why = f"{trouble.reason}: {trouble.message}" if trouble.message else trouble.reason
    match trouble.kind:
        case Trouble.IMAGE:
            return ImageError(
                f"{tool}: the cluster's node cannot get the image {image} ({why}).",
                remedy="Check the reference; for a private registry name a Secret in "
                "engines.kubernetes.image_pull_secrets; nodes pull images themselves, and do not have those of this "
                "machine.",
            )
        case Trouble.CONTAINER if _RUNS_AS_ROOT.search(trouble.message):
            return LimitUnsupported(
                f"{tool}: no pod runs as root ({why}).", remedy="Write user: 1000:1000 in the contract."
            )
        case Trouble.CONTAINER:
            return ExecutionError(
                f"{tool} could not be set up in its pod ({why}).",
                remedy="Its limits may be too tight to start anything (memory_limit), or its working directory may not "
                "be one in the image.",
            )
        case Trouble.UNSCHEDULABLE:
            return ExecutionError(
                f"{tool}: no node of the cluster takes its pod ({why}).",
                remedy="Lower the contract's limits or engines.kubernetes.requests, fix node_selector and tolerations "
                "there, or add a node.",
            )
        case Trouble.EVICTED:
            return ExecutionError(
                f"{tool}: its node evicted its pod ({why}).",
                remedy="The node was short of memory or disk, or the tool wrote more than its volumes hold. Reserve "
                "more (engines.kubernetes.requests), or let the tool write less.",
            )
        case Trouble.ENDED if trouble.reason == OUT_OF_MEMORY:
            return ExecutionError(
                f"{tool} ran out of memory before it began ({why}).", remedy="Raise the contract's memory_limit."
            )
        case _:
            return ExecutionError(
                f"{tool}: its pod ended before the call could be handed over ({why}).",
                remedy="Something outside may have removed it. Call again; if it persists, see the namespace's events "
                "(kubectl get events).",
            )


def no_sandbox(tool: str, reason: str) -> EngineUnavailable:
    """agent-sandbox gives no pod, and the settings want no other."""
    return EngineUnavailable(
        f"{tool}: agent-sandbox gave no pod: {reason.rstrip('.')}.",
        remedy="Check that its controller and extensions run, and what `praxis-mcp doctor` says of the rights, or let "
        "the server make pods itself (engines.kubernetes.agent_sandbox: auto).",
    )


def lost(tool: str, trouble: PodTrouble | None, detail: str = "") -> ExecutionError:
    """A call was handed over, and did not come to an end of its own, or nobody can tell to which.

    Args:
        tool: whose it is.
        trouble: what became of its pod, where the cluster says so.
        detail: what is known where it does not.
    """
    why = f"{trouble.reason}: {trouble.message}".rstrip(": ") if trouble is not None else detail
    match trouble.kind if trouble is not None else None:
        case Trouble.EVICTED:
            what = "its pod was evicted"
            more = "Its node is drained or short of memory or disk, or other pods came first"
        case Trouble.REMOVED:
            what, more = "its pod was removed", "Somebody, or something else than this server, has removed it"
        case _:
            what, more = "the connection to its pod was lost", "If it persists, look at the API server's load"
    return ExecutionError(
        f"{tool}: {what} before the call ended ({why}). It may have run, whole or in part, and is not repeated by "
        "itself.",
        remedy=f"See what it did before you call again. {more}: see the namespace's events (kubectl get events).",
    )


def too_slow(tool: str, seconds: float, image: str | None, trouble: PodTrouble | None) -> ExecutionError:
    """Its pod did not run in time."""
    if trouble is not None:
        return not_running(tool, image, trouble)
    return ExecutionTimeout(
        f"{tool}: the cluster did not have its pod running within {seconds:g} s.",
        remedy="The image may be large, or the node busy: see the namespace's events (kubectl get events), or raise "
        "engines.kubernetes.start_timeout.",
    )


def out_of_reach(tool: str, address: str, reason: str, seconds: float) -> EngineUnavailable:
    """Its pod runs, and this host cannot connect to it.

    Args:
        tool: whose it is.
        address: of the pod; empty where it has none.
        reason: what the last attempt said.
        seconds: that were tried for.
    """
    return EngineUnavailable(
        f"{tool}: its pod at {address or 'no address yet'} could not be reached from this host within {seconds:g} s "
        f"({reason}).",
        remedy="With engines.kubernetes.channel: direct the server has to reach the addresses of pods, as it does in a "
        "pod of the same cluster, and NetworkPolicies have to let it (port 7031). Elsewhere write channel: forward.",
    )


@contextmanager
def translate_cluster_errors(address: str, tool: str = "") -> Iterator[None]:
    """Around what the engine does for a caller.

    Args:
        address: of the API server.
        tool: whose call it is; empty: nobody's.

    Raises:
        ExecutionError: the cluster refused, or was lost; see the subclasses.
    """
    try:
        yield
    except Refusal as exc:
        raise refused(exc, tool) from exc
    except ClusterLost as exc:
        raise unreachable(exc.address or address, exc.reason) from exc
