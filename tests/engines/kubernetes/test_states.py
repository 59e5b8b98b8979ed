"""What becomes of a pod's status and of a refusal, as API servers and kubelets of Kubernetes 1.34 write them: why a
tool did not run, and what helps."""

from __future__ import annotations

from typing import Any

import pytest

from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal
from praxis_mcp.engines.kubernetes.errors import (
    lost,
    not_running,
    refused,
    too_slow,
    translate_cluster_errors,
)
from praxis_mcp.engines.kubernetes.states import Trouble, is_running, ran_out_of_memory, trouble_of
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout, ImageError, LimitUnsupported

QUOTA = 'pods "praxis-mcp-hello-1" is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2'
NO_LIMIT = 'pods "praxis-mcp-hello-1" is forbidden: failed quota: few: must specify limits.memory for: tool'
NO_RIGHT = (
    'pods is forbidden: User "system:serviceaccount:tools:default" cannot create resource "pods" in API group "" in '
    'the namespace "tools"'
)
NO_CLASS = 'pods "praxis-mcp-hello-1" is forbidden: pod rejected: RuntimeClass "gvisor" not found'
POLICY = (
    'pods "praxis-mcp-hello-1" is forbidden: violates PodSecurity "restricted:latest": restricted volume types '
    '(volume "v1" uses restricted volume type "hostPath")'
)
NO_CPU = (
    "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found "
    "for incoming pod."
)


def pod(phase: str, state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    containers = [{"name": "tool", "ready": False, "restartCount": 0, "state": state}] if state is not None else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "praxis-mcp-hello-1"},
        "status": {"phase": phase, "containerStatuses": containers, **status},
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return pod("Pending", {"waiting": {"reason": reason, **({"message": message} if message else {})}})


def ended(reason: str, code: int, phase: str) -> dict[str, Any]:
    times = {"startedAt": "2026-11-28T09:00:00Z", "finishedAt": "2026-11-28T09:00:01Z"}
    return pod(phase, {"terminated": {"exitCode": code, "reason": reason, **times}})


def being_removed(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "metadata": {**found["metadata"], "deletionTimestamp": "2026-11-28T09:00:00Z"}}


DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}
UNSCHEDULABLE = pod(
    "Pending",
    conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_CPU}],
)
EVICTED = pod(
    "Failed",
    {"terminated": {"exitCode": 137, "reason": "Error", "startedAt": None, "finishedAt": None}},
    reason="Evicted",
    message='Usage of EmptyDir volume "v2" exceeds the limit "256Mi". ',
)


@pytest.mark.parametrize(
    ("found", "kind", "reason"),
    [
        (waiting("ErrImagePull", 'failed to resolve reference "docker.io/x/y:1": 403'), Trouble.IMAGE, "ErrImagePull"),
        (waiting("ImagePullBackOff", 'Back-off pulling image "x/y:1"'), Trouble.IMAGE, "ImagePullBackOff"),
        (waiting("ErrImageNeverPull", 'Container image "x" is not present'), Trouble.IMAGE, "ErrImageNeverPull"),
        (waiting("InvalidImageName", "couldn't parse image name"), Trouble.IMAGE, "InvalidImageName"),
        (
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
            Trouble.CONTAINER,
            "CreateContainerConfigError",
        ),
        (waiting("RunContainerError", "failed to create shim task"), Trouble.CONTAINER, "RunContainerError"),
        (UNSCHEDULABLE, Trouble.UNSCHEDULABLE, "Unschedulable"),
        (EVICTED, Trouble.EVICTED, "Evicted"),
        (pod("Failed", reason="DeadlineExceeded", message="was active too long"), Trouble.DEADLINE, "DeadlineExceeded"),
        (ended("Error", 125, "Failed"), Trouble.ENDED, "Error"),
        (pod("Failed", reason="NodeLost"), Trouble.ENDED, "NodeLost"),
        (
            {"metadata": {"deletionTimestamp": "2026-11-28T09:00:00Z"}, "status": {"phase": "Pending"}},
            Trouble.REMOVED,
            "Removed",
        ),
        (being_removed(pod("Running", {"running": {}}, conditions=[DISRUPTED])), Trouble.EVICTED, DISRUPTED["reason"]),
        (pod("Failed", conditions=[DISRUPTED]), Trouble.EVICTED, DISRUPTED["reason"]),
        (pod("Failed", reason="Terminated", message="imminent node shutdown"), Trouble.EVICTED, "Terminated"),
        (being_removed(ended("Completed", 0, "Succeeded")), Trouble.REMOVED, "Removed"),
        (being_removed(ended("OOMKilled", 0, "Failed")), Trouble.ENDED, "OOMKilled"),
    ],
)
def test_why_a_pod_does_not_run_is_read_from_its_status(found: dict[str, Any], kind: Trouble, reason: str) -> None:
    trouble = trouble_of(found)
    assert trouble is not None
    assert (trouble.kind, trouble.reason) == (kind, reason)
    assert trouble.is_final == (kind is not Trouble.UNSCHEDULABLE)


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"metadata": {"name": "a"}, "status": {}},
        pod("Pending"),
        pod("Pending", {}),
        waiting("ContainerCreating"),
        waiting("PodInitializing"),
        pod("Pending", conditions=[{"type": "PodScheduled", "status": "True"}]),
        pod("Running", {"running": {"startedAt": "2026-11-28T09:00:00Z"}}),
        pod("Running", {"running": {"startedAt": "2026-11-28T09:00:00Z"}}, conditions=[DISRUPTED]),
    ],
)
def test_a_pod_on_its_way_has_no_trouble(found: dict[str, Any]) -> None:
    assert trouble_of(found) is None
    assert is_running(found) == ("Running" in str(found))


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (0, "Failed"), (137, "Failed")])
def test_out_of_memory_is_read_from_the_reason_whatever_the_exit_code(code: int, phase: str) -> None:
    assert ran_out_of_memory(ended("OOMKilled", code, phase))


def test_a_killed_container_is_not_out_of_memory_by_its_exit_code() -> None:
    assert not ran_out_of_memory(ended("Error", 137, "Failed"))
    assert not ran_out_of_memory(pod("Running", {"running": {}}))
    assert not ran_out_of_memory({})


@pytest.mark.parametrize(
    ("found", "error", "message", "remedy"),
    [
        (waiting("ErrImagePull", "not found"), ImageError, "cannot get the image x/y:1", "image_pull_secrets"),
        (
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
            LimitUnsupported,
            "no pod runs as root",
            "user: 1000:1000",
        ),
        (waiting("RunContainerError", "failed to create"), ExecutionError, "could not be set up", "memory_limit"),
        (UNSCHEDULABLE, ExecutionError, "no node of the cluster takes its pod", "add a node"),
        (EVICTED, ExecutionError, "EmptyDir volume", "write less"),
        (ended("Error", 1, "Failed"), ExecutionError, "before the call could be handed over", "kubectl get events"),
    ],
)
def test_each_trouble_is_an_error_with_its_remedy(
    found: dict[str, Any], error: type[ExecutionError], message: str, remedy: str
) -> None:
    trouble = trouble_of(found)
    assert trouble is not None
    raised = not_running("hello", "x/y:1", trouble)
    assert type(raised) is error
    assert raised.message.startswith("hello")
    assert message in raised.message
    assert remedy in (raised.remedy or "")


@pytest.mark.parametrize(
    ("refusal", "error", "message", "remedy"),
    [
        (Refusal(403, "Forbidden", QUOTA), ExecutionError, "quota leaves no room", "ResourceQuota"),
        (Refusal(403, "Forbidden", NO_LIMIT), ExecutionError, "quota leaves no room", "memory_limit"),
        (Refusal(403, "Forbidden", NO_RIGHT), EngineUnavailable, "forbids", "praxis-mcp doctor"),
        (Refusal(403, "Forbidden", NO_CLASS), EngineUnavailable, "RuntimeClass", "kubectl get runtimeclass"),
        (Refusal(403, "Forbidden", POLICY), ExecutionError, "policy refuses", "restricted"),
        (Refusal(401, "Unauthorized", "Unauthorized"), EngineUnavailable, "credentials", "Log in again"),
        (
            Refusal(404, "NotFound", 'namespaces "tools" not found'),
            EngineUnavailable,
            "does not have the namespace",
            "kubectl create namespace",
        ),
        (Refusal(422, "Invalid", 'Pod "a" is invalid: spec: x'), LimitUnsupported, "refuses the pod", "limits"),
        (Refusal(429, "TooManyRequests", "too many requests"), EngineUnavailable, "cannot serve requests now", "later"),
        (
            Refusal(503, "ServiceUnavailable", "apiserver not ready"),
            EngineUnavailable,
            "cannot serve requests now",
            "later",
        ),
        (Refusal(409, "Conflict", "the object has been modified"), ExecutionError, "409 Conflict", ""),
    ],
)
def test_each_refusal_is_an_error_with_its_remedy(
    refusal: Refusal, error: type[ExecutionError], message: str, remedy: str
) -> None:
    with pytest.raises(error) as raised, translate_cluster_errors("https://10.0.0.1", "hello"):
        raise refusal
    assert type(raised.value) is error
    assert message in raised.value.message
    assert remedy in (raised.value.remedy or "")
    assert raised.value.__cause__ is refusal
    assert type(refused(refusal)) is error, "also where it is nobody's call"


def test_a_server_that_cannot_be_reached_is_named() -> None:
    expected = pytest.raises(EngineUnavailable, match=r"at https://10\.0\.0\.1 cannot be reached: refused\.")
    with expected, translate_cluster_errors("https://10.0.0.1", "hello"):
        raise ClusterLost("", "refused")


def test_a_slow_start_is_named_by_what_it_waited_for() -> None:
    assert "no node of the cluster" in too_slow("hello", 5, "x/y:1", trouble_of(UNSCHEDULABLE)).message
    unknown = too_slow("hello", 5, "x/y:1", None)
    assert isinstance(unknown, ExecutionTimeout)
    assert "within 5 s" in unknown.message


def test_a_lost_call_may_have_run_and_says_what_the_cluster_knows_of_it() -> None:
    assert "evicted before the call ended (Evicted: Usage of EmptyDir" in lost("hello", trouble_of(EVICTED)).message
    unknown = lost("hello", None, "the channel ended")
    assert "(the channel ended). It may have run" in unknown.message
    assert "before you call again" in (unknown.remedy or "")
