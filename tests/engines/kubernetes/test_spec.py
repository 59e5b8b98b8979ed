"""What the API server is asked to create for a call, without any cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.base import EngineCapabilities
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.engines.kubernetes.rights import needed_rights, role
from praxis_mcp.engines.kubernetes.spec import (
    POD_INIT,
    PodIdentity,
    init_volume,
    name_for,
    pod_spec,
    quantity,
    room_for,
)
from praxis_mcp.errors import LimitUnsupported
from praxis_mcp.plans.model import Blueprint, Call, Limits, Plan, Where
from praxis_mcp.settings.kubernetes import KubernetesSettings
from praxis_mcp.settings.model import Settings

OWNER = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": "praxis-mcp-1", "uid": "u-1"}
BLUEPRINT = Blueprint("My_Tool", Where.CONTAINER, ("kubernetes",), Limits(30.0), image="busybox:1.36")


def spec_of(blueprint: Blueprint = BLUEPRINT, pull: str = "missing", **settings: Any) -> dict[str, Any]:
    options = KubernetesSettings(**settings)
    volumes = [init_volume("praxis-init-map"), *room_for(blueprint, [])]
    identity = PodIdentity("praxis-mcp-my-tool-1", "s1", OWNER)
    return pod_spec(blueprint, identity, options, volumes, machine="amd64", secret=b"s" * 32, pull=pull)


def container_of(spec: dict[str, Any]) -> dict[str, Any]:
    (container,) = spec["spec"]["containers"]
    return container


def test_a_pod_has_nothing_that_it_does_not_need() -> None:
    spec = spec_of()["spec"]
    assert (spec["restartPolicy"], spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (
        "Never",
        False,
        False,
    )
    assert spec["terminationGracePeriodSeconds"] == 1
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65534,
        "runAsGroup": 65534,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    security = container_of(spec_of())["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_a_pod_ends_by_itself_after_the_longest_wait_and_the_timeout() -> None:
    short, long = (
        spec_of(replace(BLUEPRINT, limits=Limits(seconds)))["spec"]["activeDeadlineSeconds"] for seconds in (1.0, 101.0)
    )
    assert long - short == 100
    assert short > 900


def test_a_pod_listens_beyond_its_loopback_only_where_the_settings_say_direct() -> None:
    assert "env" not in container_of(spec_of())
    container = container_of(spec_of(channel="direct"))
    command = container["command"]
    # In brackets, as an IPv6 address has to be; the kubelet puts the pod's own address in.
    assert command[command.index("--listen") + 1] == "[$(PRAXIS_POD_ADDRESS)]:7031"
    assert "PRAXIS_POD_ADDRESS" in command[command.index("--hide") + 1].split(",")
    assert container["env"] == [
        {"name": "PRAXIS_POD_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    ]
    assert len(command[command.index("--secret-sha256") + 1]) == 64


def test_a_direct_channel_needs_no_right_to_forward_ports() -> None:
    forward, direct = (needed_rights(KubernetesSettings(channel=way)) for way in ("forward", "direct"))
    assert [right.resource for right in forward if right not in direct] == ["pods/portforward"]
    assert set(direct) < set(forward)
    assert "portforward" not in role("tools", direct)


@pytest.mark.anyio
async def test_a_direct_channel_is_named_as_unencrypted_by_the_engine() -> None:
    for channel, is_said in (("forward", False), ("direct", True)):
        options: Any = {"kubernetes": {"channel": channel}}
        async with KubernetesExecutionEngine(Settings(engines=options)) as engine:
            assert ("not encrypted" in (await engine.get_capabilities()).caution) == is_said


def test_the_secret_of_the_channel_is_not_in_the_pod() -> None:
    spec = spec_of()
    assert "s" * 32 not in str(spec)
    command = container_of(spec)["command"]
    assert command[:2] == [POD_INIT, "wait"]
    assert command[command.index("--listen") + 1].startswith("127.0.0.1:")
    assert len(command[command.index("--secret-sha256") + 1]) == 64


def test_the_servers_lease_owns_the_pod() -> None:
    metadata = spec_of()["metadata"]
    assert metadata["ownerReferences"] == [OWNER]
    assert metadata["labels"] == {
        "app.kubernetes.io/managed-by": "praxis-mcp",
        "praxis-mcp/server": "s1",
        "praxis-mcp/network": "none",
    }


def test_limits_become_limits_and_no_request_is_above_them() -> None:
    tight = replace(BLUEPRINT, limits=Limits(30.0, memory=64 * 1024**2, cpus=0.005))
    resources = container_of(spec_of(tight, requests={"cpu": "10m", "memory": "1Gi"}))["resources"]
    assert resources == {
        "limits": {"cpu": "5m", "memory": "67108864"},
        "requests": {"cpu": "5m", "memory": "67108864"},
    }
    roomy = replace(BLUEPRINT, limits=Limits(30.0, memory=2 * 1024**3, cpus=2.0))
    assert container_of(spec_of(roomy, requests={"cpu": "10m", "memory": "1Gi"}))["resources"] == {
        "limits": {"cpu": "2000m", "memory": "2147483648"},
        "requests": {"cpu": "10m", "memory": "1Gi"},
    }


@pytest.mark.parametrize(("text", "value"), [("10m", "0.010"), ("2", "2"), ("1.5Gi", "1610612736.0"), ("3k", "3000")])
def test_quantities_are_those_of_kubernetes(text: str, value: str) -> None:
    assert str(quantity(text)) == value


def test_the_settings_reach_the_pod() -> None:
    spec = spec_of(
        pull="never",
        runtime_class="gvisor",
        service_account="tools",
        node_selector={"pool": "tools"},
        tolerations=[{"key": "tools", "operator": "Exists", "toleration_seconds": 5}],
        image_pull_secrets=["registry"],
    )
    found = spec["spec"]
    assert (found["runtimeClassName"], found["serviceAccountName"]) == ("gvisor", "tools")
    assert found["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "pool": "tools"}
    assert found["tolerations"] == [{"key": "tools", "operator": "Exists", "tolerationSeconds": 5}]
    assert found["imagePullSecrets"] == [{"name": "registry"}]
    assert container_of(spec)["imagePullPolicy"] == "Never"


@pytest.mark.parametrize(
    ("user", "expected"), [("1000:2000", (1000, 2000)), ("1000", (1000, None)), (None, (65534, 65534))]
)
def test_a_tool_runs_as_its_contracts_numbers(user: str | None, expected: tuple[int, int | None]) -> None:
    security = spec_of(replace(BLUEPRINT, user=user))["spec"]["securityContext"]
    assert (security["runAsUser"], security.get("runAsGroup")) == expected


@pytest.mark.parametrize("user", ["root", "0", "0:1000", "app", "1000:staff"])
def test_root_and_names_of_users_are_refused(user: str) -> None:
    with pytest.raises(LimitUnsupported, match=r"root|a name"):
        spec_of(replace(BLUEPRINT, user=user))


def test_a_server_that_is_root_leaves_the_user_of_a_tool_with_artifacts_to_the_engine() -> None:
    blueprint = replace(BLUEPRINT, user="0:0", artifact_dir="/out", artifacts=("*",))
    assert spec_of(blueprint)["spec"]["securityContext"]["runAsUser"] == 65534


@pytest.mark.parametrize(
    ("files", "places"),
    [
        ([], ["/tmp"]),
        (["/tmp/a/b"], ["/tmp"]),
        (["/data/in.txt", "/data/deep/er.txt"], ["/tmp", "/data"]),
    ],
)
def test_files_of_a_call_have_directories_in_memory(files: list[str], places: list[str]) -> None:
    assert sorted(volume.path for volume in room_for(BLUEPRINT, files)) == sorted(places)


@pytest.mark.parametrize("path", ["/input.txt", "/etc/app.conf", "/usr/bin/tool"])
def test_no_directory_of_the_image_is_hidden_by_one_for_a_file(path: str) -> None:
    with pytest.raises(LimitUnsupported, match=path):
        room_for(BLUEPRINT, [path])


def test_names_of_pods_are_names_of_kubernetes() -> None:
    assert name_for("My_Tool", "1a2b") == "praxis-mcp-my-tool-1a2b"
    assert name_for("___", "1a2b") == "praxis-mcp-1a2b"
    assert len(name_for("x" * 128, "1a2b")) <= 63


@pytest.mark.anyio
@pytest.mark.native
@pytest.mark.parametrize(
    ("change", "settings", "reason"),
    [
        ({"use_entrypoint": True}, {}, "use_entrypoint"),
        ({"user": "app"}, {}, "is a name"),
        ({"user": "0"}, {}, "is root"),
        ({"limits": Limits(30.0, pids=64)}, {}, "podPidsLimit"),
        ({"limits": Limits(30.0, pids=64)}, {"pids_limit": 512}, "each pod of the cluster may have 512"),
        ({"network": Network.BRIDGE}, {}, "network_bridge"),
        ({"network": Network.HOST}, {}, "network: host"),
        ({"privileged": True}, {}, "privileged"),
        ({"cache_dirs": ("/cache",)}, {}, "cache_dirs"),
    ],
)
async def test_what_no_pod_enforces_is_refused_with_the_reason(
    change: dict[str, Any], settings: dict[str, Any], reason: str
) -> None:
    lacks = await lacks_of(replace(BLUEPRINT, **change), settings)
    assert len(lacks) == 1
    assert reason in lacks[0]


@pytest.mark.anyio
@pytest.mark.native
async def test_what_the_settings_promise_of_the_cluster_is_enforced() -> None:
    blueprint = replace(BLUEPRINT, network=Network.BRIDGE, limits=Limits(30.0, pids=512))
    assert await lacks_of(blueprint, {"pids_limit": 512, "network_bridge": True}) == ()


async def lacks_of(blueprint: Blueprint, settings: dict[str, Any]) -> tuple[str, ...]:
    engine = KubernetesExecutionEngine(Settings(engines={"kubernetes": settings}))  # pyright: ignore[reportArgumentType]
    capabilities: EngineCapabilities = await engine.get_capabilities()
    return capabilities.lacks(Plan(blueprint, Call(run_id="r")))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("warm", "enabled", "reason"),
    [(True, True, ""), (False, True, "the contract says warm: false"), (True, False, "warm.enabled is false")],
)
async def test_explain_says_whether_a_pod_may_wait_for_a_call(warm: bool, enabled: bool, reason: str) -> None:
    settings = Settings.model_validate({"warm": {"enabled": enabled}})
    plan = Plan(replace(BLUEPRINT, warm=warm), Call("run", ("true",)))
    assert await KubernetesExecutionEngine(settings).find_cold_reason(plan) == reason
