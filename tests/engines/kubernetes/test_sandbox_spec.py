"""When a pod that agent-sandbox gave is what its template says."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from praxis_mcp.engines.kubernetes.rights import SANDBOX_RIGHTS, needed_rights
from praxis_mcp.engines.kubernetes.sandbox_spec import bound_sandbox, difference, is_name, made_at, why_not_bound
from praxis_mcp.settings.kubernetes import KubernetesSettings

Object = dict[str, Any]
WANTED: Object = {
    "restartPolicy": "Never",
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65534},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "tools", "operator": "Exists"}],
    "containers": [
        {
            "name": "tool",
            "image": "busybox:1.36",
            "command": ["/.praxis-init", "wait"],
            "resources": {"limits": {"cpu": "500m", "memory": "500000000"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "v0", "mountPath": "/tmp", "readOnly": False}],
        }
    ],
    "volumes": [{"name": "v0", "emptyDir": {"medium": "Memory", "sizeLimit": "268435456"}}],
}


def container(spec: Object) -> Object:
    return spec["containers"][0]


def as_a_cluster_writes_it() -> Object:
    """The same with all that API servers, schedulers, LimitRanges and RuntimeClasses fill in."""
    found = copy.deepcopy(WANTED)
    found |= {"nodeName": "node-1", "schedulerName": "default-scheduler", "priority": 0, "dnsPolicy": "ClusterFirst"}
    found |= {"serviceAccountName": "default", "serviceAccount": "default", "preemptionPolicy": "PreemptLowerPriority"}
    found |= {"overhead": {"memory": "32Mi"}, "hostAliases": []}
    found["tolerations"].append({"key": "node.kubernetes.io/not-ready", "operator": "Exists"})
    found["nodeSelector"]["runtime"] = "gvisor"
    container(found).update(terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    container(found)["resources"] = {
        "limits": {"cpu": "0.5", "memory": "500M", "ephemeral-storage": "1Gi"},
        "requests": {"cpu": "500m"},
    }
    del container(found)["volumeMounts"][0]["readOnly"]
    found["volumes"][0]["emptyDir"]["sizeLimit"] = "256Mi"
    return found


def test_what_a_cluster_fills_in_by_itself_does_not_matter() -> None:
    assert difference(WANTED, as_a_cluster_writes_it()) == ""


CHANGES: dict[str, Callable[[Object], Any]] = {
    "containers[0].image": lambda spec: container(spec).update(image="evil:1"),
    "containers[0].command[1]": lambda spec: container(spec)["command"].__setitem__(1, "run"),
    "containers[0].command[2]": lambda spec: container(spec)["command"].append("more"),
    "containers[0].env": lambda spec: container(spec).update(env=[{"name": "LD_PRELOAD", "value": "/evil"}]),
    "containers[0].args": lambda spec: container(spec).update(args=["x"]),
    "containers[0].lifecycle": lambda spec: container(spec).update(lifecycle={"postStart": {}}),
    "containers[0].terminationMessagePath": lambda spec: container(spec).update(terminationMessagePath="/tmp/in"),
    "containers[0].securityContext.privileged": lambda spec: container(spec)["securityContext"].update(privileged=True),
    "containers[0].securityContext.capabilities.add": (
        lambda spec: container(spec)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"])
    ),
    "containers[0].securityContext.allowPrivilegeEscalation": (
        lambda spec: container(spec)["securityContext"].pop("allowPrivilegeEscalation")
    ),
    "containers[0].resources.limits.memory": (
        lambda spec: container(spec)["resources"]["limits"].update(memory="64Gi")
    ),
    "containers[0].resources.limits.cpu": lambda spec: container(spec)["resources"]["limits"].update(cpu="1 2 3"),
    "containers[0].volumeMounts[1]": (
        lambda spec: container(spec)["volumeMounts"].append({"name": "v1", "mountPath": "/host"})
    ),
    "containers[1]": lambda spec: spec["containers"].append({"name": "beside"}),
    "initContainers": lambda spec: spec.update(initContainers=[{"name": "before"}]),
    "ephemeralContainers": lambda spec: spec.update(ephemeralContainers=[{"name": "debugger"}]),
    "hostNetwork": lambda spec: spec.update(hostNetwork=True),
    "hostPID": lambda spec: spec.update(hostPID=True),
    "shareProcessNamespace": lambda spec: spec.update(shareProcessNamespace=True),
    "automountServiceAccountToken": lambda spec: spec.pop("automountServiceAccountToken"),
    "serviceAccountName": lambda spec: spec.update(serviceAccountName="admin"),
    "runtimeClassName": lambda spec: spec.update(runtimeClassName="unconfined"),
    "dnsPolicy": lambda spec: spec.update(dnsPolicy="None"),
    "securityContext.runAsUser": lambda spec: spec["securityContext"].update(runAsUser=0),
    "securityContext.runAsNonRoot": lambda spec: spec["securityContext"].update(runAsNonRoot=1),
    "securityContext.supplementalGroups": lambda spec: spec["securityContext"].update(supplementalGroups=[0]),
    "nodeSelector.kubernetes.io/arch": lambda spec: spec["nodeSelector"].update({"kubernetes.io/arch": "arm64"}),
    "tolerations": lambda spec: spec.update(tolerations=[]),
    "volumes[0].hostPath": lambda spec: spec["volumes"][0].update(hostPath={"path": "/"}),
    "volumes[0].emptyDir.sizeLimit": lambda spec: spec["volumes"][0]["emptyDir"].update(sizeLimit=None),
    "volumes[1]": lambda spec: spec["volumes"].append({"name": "v1", "secret": {"secretName": "s"}}),
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_matters_is_named_where_it_is_not_as_it_should_be(field: str) -> None:
    found = as_a_cluster_writes_it()
    CHANGES[field](found)
    assert difference(WANTED, found) == field


def test_no_name_leads_a_request_elsewhere() -> None:
    assert is_name("praxis-mcp-hello-0a1b2c")
    for text in ("", "..", "a/b", "../pods/x", "A", "a\n", None, 7, "x" * 300):
        assert not is_name(text)
        assert bound_sandbox({"status": {"sandbox": {"name": text}}}) == ""


def test_what_a_controller_says_is_found_whatever_else_there_is() -> None:
    assert why_not_bound({}) == ""
    ready = {"type": "Ready", "status": "False", "reason": "WarmPoolNotFound", "message": "no pool"}
    assert why_not_bound({"status": {"conditions": [{"type": "Finished"}, ready]}}) == "WarmPoolNotFound: no pool"
    assert why_not_bound({"status": {"conditions": [{**ready, "status": "True"}]}}) == ""


def test_an_object_without_a_time_is_not_taken_for_a_new_one() -> None:
    assert made_at({"metadata": {"creationTimestamp": "1970-01-01T00:00:10Z"}}) == 10
    with pytest.raises(ValueError, match="isoformat"):
        made_at({"metadata": {}})


def test_the_right_to_make_pods_is_not_needed_where_agent_sandbox_makes_them_all() -> None:
    auto, require = (
        needed_rights(KubernetesSettings.model_validate({"agent_sandbox": choice})) for choice in ("auto", "require")
    )
    assert not set(SANDBOX_RIGHTS) & set(auto)
    assert set(SANDBOX_RIGHTS) <= set(require)
    (pods,) = (right for right in require if right.resource == "pods")
    assert pods.verbs == ("get", "list", "watch")
