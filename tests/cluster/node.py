"""A node of a test's cluster: a machine with containerd, which makes containers by runc, and a kubelet."""

from __future__ import annotations

import json
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

from tests.cluster import archives, programs
from tests.cluster.machines import Machine, MachineFailed, run, tail
from tests.kit.until import until_blocking

START_TIMEOUT = 120.0
PODS_PIDS = 512
"""Processes that each pod may have, by the kubelet's configuration."""
OTHER_HANDLER = "other"
"""A second handler that a RuntimeClass may name; it is runc too."""

_CONTAINERD = """
version = 2
root = "{place}/containerd"
state = "/run/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{place}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true # root without CAP_SYS_RESOURCE may not lower it, and every pod would fail
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{place}/network"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{other}]
    runtime_type = "io.containerd.runc.v2"
"""


class Node(Machine):
    """A node.

    Args:
        place: its directory.
        network: the cluster's.
    """

    def __init__(self, place: Path, network: IPv4Network) -> None:
        super().__init__(place)
        self.network = network
        self.number = int(self.name.rpartition("-")[2])

    @property
    def address(self) -> str:
        """Its own."""
        return str(self.network[10 + self.number])

    @property
    def pods(self) -> IPv4Network:
        """Where its pods are."""
        return IPv4Network((int(self.network[self.number * 256]), 24))

    @property
    def socket(self) -> Path:
        """Of its containerd."""
        return self.place / "containerd.sock"

    def connect(self, control: Machine) -> None:
        """Give it its address, and everybody a way to its pods."""
        run("ip", "link", "add", "nodes", "netns", str(self.process), "type", "veth",
            "peer", "name", self.name, "netns", str(control.process))  # fmt: skip
        control.command("sh", "-ec", f"ip link set {self.name} master nodes; ip link set {self.name} up")
        gateway = self.network[1]
        self.command("sh", "-ec", f"""
            ip address add {self.address}/24 dev nodes
            ip link set nodes up
            ip route add default via {gateway}
            echo 1 >/proc/sys/net/ipv4/ip_forward
        """)  # fmt: skip
        way = ("ip", "route", "add", str(self.pods), "via", self.address)
        control.command(*way)
        run(*way)

    def start_containerd(self) -> None:
        """Start containerd, and wait until it answers.

        What it keeps, images above all, is in memory: thousands of small files would take longer to remove from some
        disks than all the rest takes. So what a container writes to its root file system counts as its memory.
        """
        (self.place / "containerd").mkdir()
        self.command("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", f"{self.place}/containerd")
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [{
                "type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True,
                "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": str(self.pods)}]],
                         "routes": [{"dst": "0.0.0.0/0"}]},
            }],
        }  # fmt: skip
        (self.place / "network").mkdir()
        (self.place / "network" / "pods.conflist").write_text(json.dumps(network))
        (self.place / "containerd.toml").write_text(_CONTAINERD.format(
            place=self.place, pause=archives.PAUSE, plugins=programs.plugins(), other=OTHER_HANDLER
        ))  # fmt: skip
        self.spawn(
            programs.find("containerd") or "containerd", f"--config={self.place}/containerd.toml",
        )  # fmt: skip
        until_blocking(self._containerd_answers, within=START_TIMEOUT, every=0.1, what=f"containerd on {self.name}")

    def start_kubelet(self) -> None:
        """Start the kubelet, which tells the API server of the node."""
        self._make_control_groups()
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.place.parent / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._control_group}",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "failSwapOn": False,
            "healthzPort": 0,
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "podLogsDir": str(self.place / "pods"),
            "podPidsLimit": PODS_PIDS,
            "registerNode": True,
            "resolvConf": "",
            "serializeImagePulls": False,
        }
        file = self.place / "kubelet.json"
        file.write_text(json.dumps(configuration))
        kubelet = programs.KUBERNETES.place / "kubelet"
        self.spawn(
            str(kubelet), f"--config={file}", f"--kubeconfig={self.place.parent / self.name}.kubeconfig",
            f"--hostname-override={self.name}", f"--node-ip={self.address}", f"--root-dir={self.place}/kubelet",
        )  # fmt: skip

    def load(self, archive: Path) -> None:
        """Have an image, as `docker save` writes it; pods can use it at once."""
        self._ctr("images", "import", str(archive))
        until_blocking(self._knows_all_images, within=START_TIMEOUT, what=f"{self.name} to know {archive.name}")

    def images(self) -> list[str]:
        """The names of the images that it has."""
        return self._ctr("images", "list", "--quiet").split()

    def _knows_all_images(self) -> bool:
        """Whether the part of containerd that kubelets ask has heard of each."""
        return all("io.cri-containerd.image=managed" in line for line in self._ctr("images", "list").splitlines()[1:])

    @property
    def _control_group(self) -> str:
        return f"{self.place.parent.name}/{self.name}"

    def _make_control_groups(self) -> None:
        """Make the groups below which the kubelet makes those of pods."""
        root = Path("/sys/fs/cgroup")
        if not (root / "cgroup.controllers").exists():  # version 1: a tree for each controller
            for controller in root.iterdir():
                if (controller / "tasks").exists():
                    (controller / self._control_group).mkdir(parents=True, exist_ok=True)
            return
        group = root / self._control_group
        group.mkdir(parents=True, exist_ok=True)
        for parent in (root, group.parent):
            for controller in (root / "cgroup.controllers").read_text().split():
                with suppress(OSError):  # the kubelet says which of these it cannot do without
                    (parent / "cgroup.subtree_control").write_text(f"+{controller}")

    def _containerd_answers(self) -> bool:
        try:
            self._ctr("version")
        except MachineFailed as exc:
            if not self.programs("containerd") and self.socket.exists():
                raise MachineFailed(f"{exc}\n{tail(self.place / 'containerd.log')}") from None
            return False
        return True

    def _ctr(self, *arguments: str) -> str:
        return run(programs.find("ctr") or "ctr", f"--address={self.socket}", "--namespace=k8s.io", *arguments)
