"""The cluster that other tests rely on does what a cluster does, and leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import guard
from tests.cluster.api import Api, ApiError
from tests.cluster.cluster import Cluster, running_cluster, sweep
from tests.cluster.objects import account, namespace, phase, pod
from tests.kit.until import until_blocking

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def api(kubernetes_cluster: Cluster) -> Iterator[Api]:
    with kubernetes_cluster.api() as client:
        yield client


@pytest.fixture
def place(api: Api) -> Iterator[str]:
    with namespace(api) as name:
        yield name


def test_a_pod_runs_to_its_end_and_its_output_is_kept(api: Api, place: str) -> None:
    api.post(f"/api/v1/namespaces/{place}/pods", pod("hello", "echo", "hello"))
    ended = phase(api, place, "hello", "Succeeded")
    assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert api.text(f"/api/v1/namespaces/{place}/pods/hello/log") == "hello\n"


def test_pods_run_on_both_nodes_and_the_host_and_pods_reach_them(
    kubernetes_cluster: Cluster, api: Api, place: str
) -> None:
    server = ("httpd", "-f", "-p", "8000", "-h", "/etc")
    for node in kubernetes_cluster.nodes[:2]:
        api.post(f"/api/v1/namespaces/{place}/pods", pod(node.name, *server, nodeName=node.name))
    first, second = (
        phase(api, place, node.name, "Running")["status"]["podIP"] for node in kubernetes_cluster.nodes[:2]
    )
    until_blocking(lambda: _answers(first))
    until_blocking(lambda: _answers(second))
    client = pod("client", "wget", "-O", "-", f"http://{second}:8000/passwd", nodeName=kubernetes_cluster.nodes[0].name)
    api.post(f"/api/v1/namespaces/{place}/pods", client)
    phase(api, place, "client", "Succeeded")


@pytest.mark.anyio
async def test_a_pods_port_is_reached_through_the_api_server(api: Api, place: str) -> None:
    api.post(f"/api/v1/namespaces/{place}/pods", pod("server", "httpd", "-f", "-p", "8000", "-h", "/etc"))
    address = phase(api, place, "server", "Running")["status"]["podIP"]
    until_blocking(lambda: _answers(address))
    async with api.port(place, "server", 8000) as port:
        await port.send(b"GET /group HTTP/1.0\r\n\r\n")
        received = b""
        while b"root:x:0:" not in received:
            received += await port.receive()
    async with api.port(place, "server", 8001) as port:
        with pytest.raises(ConnectionError, match="refused"):
            await port.receive()


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 8000), timeout=60):
            return True
    except ConnectionRefusedError:
        return False


def test_a_pod_reaches_the_api_server_by_its_service(api: Api, place: str) -> None:
    probe = "nc -w 30 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null"
    api.post(f"/api/v1/namespaces/{place}/pods", pod("probe", "sh", "-c", probe))
    phase(api, place, "probe", "Succeeded")


def test_an_account_has_the_rights_of_its_role_and_no_others(kubernetes_cluster: Cluster, api: Api, place: str) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    with kubernetes_cluster.api(account(kubernetes_cluster, api, place, rules)) as limited:
        assert limited.get(f"/api/v1/namespaces/{place}/pods")["items"] == []
        for refused in (f"/api/v1/namespaces/{place}/secrets", "/api/v1/namespaces/default/pods", "/api/v1/nodes"):
            with pytest.raises(ApiError, match="Forbidden"):
                limited.get(refused)


def test_the_api_server_knows_what_it_knew_after_it_was_killed() -> None:
    with running_cluster() as cluster, cluster.api() as api, namespace(api) as place:
        cluster.kill_apiserver()
        assert not api.is_ready()
        cluster.start_apiserver()
        assert api.exists(f"/api/v1/namespaces/{place}")


def test_two_clusters_run_next_to_each_other_and_one_ends_alone(
    kubernetes_cluster: Cluster, api: Api, place: str
) -> None:
    with running_cluster() as other:
        assert not other.network.overlaps(kubernetes_cluster.network)
        with other.api() as others_api:
            assert len(others_api.get("/api/v1/nodes")["items"]) == 1
            assert not others_api.exists(f"/api/v1/namespaces/{place}")
    assert len(api.get("/api/v1/nodes")["items"]) >= 2
    api.post(f"/api/v1/namespaces/{place}/pods", pod("hello", "true"))
    phase(api, place, "hello", "Succeeded")


def test_a_killed_nodes_pods_end_with_it_and_one_more_node_takes_others() -> None:
    with running_cluster() as cluster, cluster.api() as api, namespace(api) as place:
        api.post(f"/api/v1/namespaces/{place}/pods", pod("waits", "sleep", "600"))
        address = phase(api, place, "waits", "Running")["status"]["podIP"]
        node = cluster.nodes[0]
        groups = _processes_of(cluster)
        assert groups
        node.kill()
        assert cluster.nodes == []
        until_blocking(lambda: not _processes_of(cluster), what="the end of the pod's processes")
        assert cluster.control.programs("kube-apiserver")
        with pytest.raises(OSError), socket.create_connection((address, 1), timeout=10):
            pass
        added = cluster.add_node()
        api.post(f"/api/v1/namespaces/{place}/pods", pod("next", "true", nodeName=added.name))
        phase(api, place, "next", "Succeeded")


def _processes_of(cluster: Cluster) -> list[str]:
    files = [group / "cgroup.procs" for group in guard.control_groups(cluster.place)]
    return [process for file in files for process in file.read_text().split()]


HOLDER = """
import sys, time
from tests.cluster.cluster import running_cluster
with running_cluster() as cluster:
    print(cluster.place, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", ["user", "guard"])
def test_nothing_is_left_of_a_cluster_whose_user_or_guard_was_killed(killed: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        place = Path(holder.stdout.readline().strip())
        assert place.name.startswith(guard.PREFIX)
        cluster = Cluster(place)
        network, node, control = cluster.network, cluster.nodes[0], cluster.control
        with cluster.api() as api:
            api.post("/api/v1/namespaces/default/pods", pod("waits", "sleep", "600"))
            phase(api, "default", "waits", "Running")
        found = [*_processes_of(cluster), str(node.process), str(control.process)]
        namespaces = {os.readlink(f"/proc/{node.process}/ns/{kind}") for kind in ("net", "mnt", "pid")}
        assert len(found) > 3
        if killed == "guard":
            os.kill(_guard(place), signal.SIGKILL)
        holder.kill()
    if killed == "user":
        cluster.leave()
    else:
        until_blocking(lambda: not any(Path("/proc", process).exists() for process in found))
        sweep()
    assert not place.exists()
    assert not guard.control_groups(place)
    assert not [process for process in found if Path("/proc", process).exists()]
    until_blocking(lambda: str(network[254]) not in _host_network(), what="the end of the host's link")
    assert not namespaces & _all_namespaces()
    assert str(network) not in _host_network()
    assert str(place) not in Path("/proc/self/mountinfo").read_text()


def _guard(place: Path) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(place).encode() in command and guard.__file__.encode() in command:
            return int(entry.name)
    raise AssertionError("no guard")


def _host_network() -> str:
    commands = (["ip", "-4", "address"], ["ip", "-4", "route"])
    return "".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands)


def _all_namespaces() -> set[str]:
    found: set[str] = set()
    for kind in ("net", "mnt", "pid"):
        for file in Path("/proc").glob(f"[0-9]*/ns/{kind}"):
            try:
                found.add(os.readlink(file))
            except OSError:
                continue
    return found
