"""What a tool in a pod can reach from inside: tried by one that tries."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.settings.model import Settings
from tests.cluster.cluster import Cluster
from tests.engines.kubernetes.case import engine_settings

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes, pytest.mark.native, pytest.mark.timeout(600)]

PROBES = Path(__file__).with_name("probes.py")
NO_CAPABILITIES = "0" * 16


async def found_inside(cluster: Cluster, root: Path, network: str) -> dict[str, Any]:
    """What the probes say."""
    image = await anyio.to_thread.run_sync(cluster.load_stand_in, "python:3.11-slim")
    settings = Settings(
        root=root,
        engines={"kubernetes": engine_settings(network_bridge=True)},  # pyright: ignore[reportArgumentType]
        warm={"enabled": False},  # pyright: ignore[reportArgumentType]
    )
    words = ["python3", "-c", PROBES.read_text(), cluster.address, cluster.nodes[0].address]
    contract = ToolContract.create_dagger_tool("probe", image, words, network=network)
    async with KubernetesExecutionEngine(settings) as engine:
        result = await engine.execute(contract, {})
    assert result.exit_code == 0, result
    return json.loads(result.output)


@pytest.mark.parametrize("network", ["none", "bridge"])
async def test_a_tool_in_a_pod_gets_no_hold_on_its_node(
    network: str, kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    found = await found_inside(kubernetes_cluster, tmp_path, network)
    assert found["who"] == [65534, 65534, [65534]]
    status = found["status"]
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {NO_CAPABILITIES}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for name, inside in found["namespaces"].items():
        assert inside != os.readlink(f"/proc/self/ns/{name}"), name
        for node in kubernetes_cluster.nodes:
            assert inside != os.readlink(f"/proc/{node.process}/ns/{name}"), f"{name} of its node"
    assert found["processes"] <= 3
    assert (found["token"], found["variables"], found["devices"]) == ([], [], [])
    assert all(found["init"].values()), found["init"]
    assert found["written"].pop("/tmp/probe") == ""
    assert all(found["written"].values()), found["written"]
    assert all(found["read"].values()), found["read"]
    assert all(found["calls"].values()), found["calls"]


async def test_one_without_a_network_reaches_nobody(kubernetes_cluster: Cluster, tmp_path: Path) -> None:
    found = await found_inside(kubernetes_cluster, tmp_path, "none")
    assert found["sockets"].pop("unix") == ""
    assert all(found["sockets"].values()), found["sockets"]
    assert all(found["reached"].values()), found["reached"]


async def test_one_with_the_pod_network_reaches_what_the_clusters_policies_let_it_and_not_its_own_channel(
    kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    """The cluster of the tests enforces no policies, and leads nowhere else."""
    found = await found_inside(kubernetes_cluster, tmp_path, "bridge")
    assert found["sockets"]["inet"] == ""
    assert all(found["sockets"][name] for name in ("raw", "packet", "vsock")), found["sockets"]
    reached = found["reached"]
    assert (reached["the API server"], reached["the kubelet"]) == ("", ""), "with nothing to show there"
    assert reached["the channel"] == "ECONNREFUSED"
