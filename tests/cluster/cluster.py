"""A real Kubernetes cluster of one machine's namespaces: etcd and Kubernetes' own programs, containerd and runc.

There is no kube-proxy and no DNS: pods reach the API server by its service's address, and one another by theirs. The
host reaches all of them. Nothing outside does.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from tests.cluster import archives, credentials, guard, programs
from tests.cluster.api import Api
from tests.cluster.machines import Machine, MachineFailed, environment, run, tail
from tests.cluster.node import Node
from tests.kit.cache import exclusive
from tests.kit.until import until_blocking

START_TIMEOUT = 180.0
"""Seconds within which each step of a start ends, on a machine with many times its load."""
NETWORKS = list(IPv4Network("198.18.0.0/15").subnets(new_prefix=20))
"""One for each cluster of this host, of what is set aside for tests between networks (RFC 2544)."""
MOST_NODES = 4
LOOKS = 30
"""Looks in a row that miss a program before it is held to have ended; one that was just started has no name yet."""


class Cluster:
    """A cluster that runs, which this process or another has started; this one uses it until `leave`.

    Args:
        place: its directory.

    Raises:
        BlockingIOError: it is about to end.
        FileNotFoundError: it has ended.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._using = guard.locked(place / "users", shared=True)
        self._using.__enter__()
        self.control = Machine(place / "control")

    @property
    def network(self) -> IPv4Network:
        """Where its machines, pods and services are."""
        return IPv4Network((self.place / "network").read_text())

    @property
    def nodes(self) -> list[Node]:
        """Its nodes, without those that were killed."""
        return [Node(file.parent, self.network) for file in sorted(self.place.glob("node-?/process"))]

    @property
    def address(self) -> str:
        """Of its API server, at port 443."""
        return str(self.network[1])

    @property
    def kubeconfig(self) -> Path:
        """What a client needs that may do everything."""
        return self.place / f"{credentials.ADMIN}.kubeconfig"

    def api(self, kubeconfig: Path | None = None) -> Api:
        """A client, to be closed.

        Args:
            kubeconfig: whose; of the one who may do everything by default.
        """
        return Api(kubeconfig or self.kubeconfig)

    def leave(self) -> None:
        """Use it no longer. It ends when nobody does; wait for that where this was the last user."""
        last = not guard.has_other_users(self.place / "users")
        self._using.__exit__(None, None, None)
        if last:
            until_blocking(lambda: not self.place.exists(), within=guard.TIMEOUT, what=f"the end of {self.place}")

    def logs(self) -> str:
        """The last lines of all that its programs wrote."""
        files = sorted(self.place.glob("*/*.log"))
        return "\n".join(f"--- {file.relative_to(self.place)}\n{tail(file)}" for file in files)

    # --- its API server -------------------------------------------------------------------------------------------

    def kill_apiserver(self) -> None:
        """Kill the API server, as a machine's failure would; clients see their connections reset."""
        self.control.signal("kube-apiserver", signal.SIGKILL)

    def start_apiserver(self) -> None:
        """Start the API server again, with all that it knew; wait until it is ready."""
        self._spawn_apiserver()
        self._await_apiserver()

    # --- images ---------------------------------------------------------------------------------------------------

    def load(self, archive: Path) -> None:
        """Have an image on every node.

        Args:
            archive: as `docker save` writes it, or an OCI archive.
        """
        self._load(archive, self.nodes)

    def load_stand_in(self, reference: str) -> str:
        """Have an image of `tests.kit.images` on every node, and return the name that pods know it by."""
        name = archives.full_name(reference)
        if without := [node for node in self.nodes if name not in node.images()]:
            self._load(archives.stand_in(reference), without)
        return name

    def _load(self, archive: Path, nodes: list[Node]) -> None:
        with ThreadPoolExecutor() as threads:
            for done in [threads.submit(node.load, archive) for node in nodes]:
                done.result()

    # --- nodes ----------------------------------------------------------------------------------------------------

    def add_node(self) -> Node:
        """Start one more node, and wait until it is ready."""
        node = self._new_node()
        node.start_kubelet()
        self._await_node(node)
        return node

    def _new_node(self) -> Node:
        """A machine with containerd and the images that every node has."""
        number = len(list(self.place.glob("node-?"))) + 1
        assert number <= MOST_NODES, f"a cluster has at most {MOST_NODES} nodes"
        node = Node(self.place / f"node-{number}", self.network)
        node.start(self.place / "alive")
        node.connect(self.control)
        node.start_containerd()
        for archive in (archives.pause(), archives.stand_in("busybox:1.36")):
            node.load(archive)
        return node

    def _await_node(self, node: Node) -> None:
        with self.api() as api:
            kubelet = (node, "kubelet")
            self._await(lambda: api.node_is_ready(node.name), f"{node.name} to be ready", kubelet)

    # --- its start ------------------------------------------------------------------------------------------------

    def start(self, nodes: int) -> None:
        """Start all of it; a part of `running_cluster`."""
        with ThreadPoolExecutor() as threads:
            made = [threads.submit(self._new_node)]
            self._spawn_etcd()
            self._spawn_apiserver()
            self._await_apiserver()
            self._spawn_controllers()
            made[0].result().start_kubelet()
            for _ in range(nodes - 1):
                self._new_node().start_kubelet()
        for node in self.nodes:
            self._await_node(node)
        with self.api() as api:
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            controllers = (self.control, "kube-controller-manager")
            self._await(lambda: api.exists(account), "service accounts to be made", controllers)

    def connect(self) -> None:
        """Give its first machine its addresses, and the host a way there; a part of `running_cluster`."""
        control, network = self.control, self.network
        link = f"praxis{NETWORKS.index(network)}"
        (self.place / "link").write_text(link)
        run("ip", "route", "add", "unreachable", str(network))  # nothing for it leaves this host, whatever has ended
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "host", "netns", str(control.process))
        run("ip", "address", "add", f"{network[254]}/24", "dev", link)
        run("ip", "link", "set", link, "up")
        service = network[15 * 256 + 1]  # that of the API server, which kube-proxy would lead there
        control.command("sh", "-ec", f"""
            ip link add nodes address 02:00:00:00:00:01 type bridge # else it changes with each node
            ip link set host master nodes
            ip address add {network[1]}/24 dev nodes
            ip address add {service}/32 dev lo
            ip link set host up
            ip link set nodes up
            echo 1 >/proc/sys/net/ipv4/ip_forward
        """)  # fmt: skip

    def _spawn_etcd(self) -> None:
        self.control.spawn(
            programs.find("etcd") or "etcd", "--data-dir=/run/etcd", "--log-level=warn",
            "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        )  # fmt: skip

    def _spawn_apiserver(self) -> None:
        place = self.place
        self.control.spawn(
            _kubernetes("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379", "--secure-port=443",
            f"--advertise-address={self.address}", f"--service-cluster-ip-range={self.network[15 * 256]}/24",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
            f"--token-auth-file={place}/tokens.csv", f"--client-ca-file={place}/ca.crt", "--anonymous-auth=false",
            f"--tls-cert-file={place}/server.crt", f"--tls-private-key-file={place}/server.key", "--cert-dir=/run",
            f"--kubelet-client-certificate={place}/client.crt", f"--kubelet-client-key={place}/client.key",
            "--kubelet-preferred-address-types=InternalIP", f"--service-account-issuer=https://{self.address}",
            f"--service-account-key-file={place}/accounts.key",
            f"--service-account-signing-key-file={place}/accounts.key",
        )  # fmt: skip

    def _spawn_controllers(self) -> None:
        place = self.place
        self.control.spawn(
            _kubernetes("kube-controller-manager"), f"--kubeconfig={place}/controllers.kubeconfig",
            "--use-service-account-credentials", "--leader-elect=false", f"--root-ca-file={place}/ca.crt",
            "--cert-dir=/run", "--bind-address=127.0.0.1", f"--service-account-private-key-file={place}/accounts.key",
        )  # fmt: skip
        self.control.spawn(
            _kubernetes("kube-scheduler"), f"--kubeconfig={place}/scheduler.kubeconfig", "--leader-elect=false",
            "--cert-dir=/run", "--bind-address=127.0.0.1",
        )  # fmt: skip

    def _await_apiserver(self) -> None:
        with self.api() as api:
            needed = [(self.control, name) for name in ("etcd", "kube-apiserver")]
            self._await(api.is_ready, "the API server to be ready", *needed)

    def _await(self, condition: Callable[[], bool], what: str, *needed: tuple[Machine, str]) -> None:
        """Wait until it is true.

        Args:
            needed: the programs without which it never will be, each with its machine.

        Raises:
            MachineFailed: it stays false, or one of these has ended.
        """
        looks_without = 0

        def looked() -> bool:
            nonlocal looks_without
            if condition():
                return True
            ended = [name for machine, name in needed if not machine.programs(name)]
            looks_without = looks_without + 1 if ended else 0
            if looks_without > LOOKS:
                raise AssertionError(f"{', '.join(ended)} ended before {what}")
            return False

        try:
            until_blocking(looked, within=START_TIMEOUT, every=0.1, what=what)
        except AssertionError as exc:
            raise MachineFailed(f"{exc}\n{self.logs()}") from None


def _kubernetes(name: str) -> str:
    return str(programs.KUBERNETES.place / name)


@contextmanager
def running_cluster(nodes: int = 1) -> Iterator[Cluster]:
    """A cluster of a test's own, to be broken.

    Raises:
        MachineFailed: it does not start; with the last lines of its logs.
    """
    cluster = start(nodes)
    try:
        yield cluster
    finally:
        cluster.leave()


def start(nodes: int = 1, name: str = "") -> Cluster:
    """Start a cluster, and use it until `Cluster.leave` or this process's end.

    Args:
        nodes: how many.
        name: how that of its directory begins, after the prefix.

    Raises:
        MachineFailed: it does not start; with the last lines of its logs.
    """
    with exclusive("clusters"):
        guard.sweep()
        cluster = _prepared(name)
        try:
            cluster.control.start(cluster.place / "alive")
            cluster.connect()
        except BaseException:
            cluster.leave()
            raise
    try:
        cluster.start(nodes)
    except BaseException:
        cluster.leave()
        raise
    return cluster


def sweep() -> None:
    """Remove what clusters have left whose guards were killed; a start does it too."""
    with exclusive("clusters"):  # else what is just being made would be taken for a leftover
        guard.sweep()


def _prepared(name: str) -> Cluster:
    """A cluster without machines: its directory, its network, its guard."""
    place = guard.PLACES / f"{guard.PREFIX}{name}{secrets.token_hex(4)}"
    place.mkdir(mode=0o700)
    try:
        network = _free_network()
        (place / "network").write_text(str(network))
        credentials.write(place, [str(network[1]), str(network[15 * 256 + 1])])
        for file in ("users", "guard"):
            (place / file).touch()
        os.mkfifo(place / "alive")
        cluster = Cluster(place)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    # It lives longer than this process, and than what ends this one's session.
    command = ["setsid", "--fork", sys.executable, "-I", "-S", guard.__file__, str(place)]
    reader = os.open(place / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with (place / "guard.log").open("wb") as log, subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd="/", env=environment()
        ) as started:  # fmt: skip
            assert started.stdout is not None
            if started.stdout.readline() != b"\n":
                raise MachineFailed(f"the guard of the cluster does not start: {tail(place / 'guard.log')}")
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    finally:
        os.close(reader)
    return cluster


def _free_network() -> IPv4Network:
    """One that nothing on this host leads to."""
    routes = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all"))
    taken = [IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    for network in NETWORKS:
        if not any(network.overlaps(other) for other in taken):
            return network
    raise MachineFailed(f"this host has routes to all of {NETWORKS[0]} to {NETWORKS[-1]}")
