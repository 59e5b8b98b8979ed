"""What the API server is asked to create for one call (core/v1 Pod), from a blueprint and the settings; no I/O here.

Nothing of the call stands in it: words, variables, standard input, secrets and files travel over the channel. Of the
channel's secret it has the digest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from praxis_mcp.engines.init.waiter import REPORT_GRACE, WAITER_PATIENCE
from praxis_mcp.errors import LimitUnsupported
from praxis_mcp.plans.model import Blueprint
from praxis_mcp.settings.kubernetes import KubernetesSettings
from praxis_mcp.support.praxis_init import wait_words

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "praxis-mcp"
SERVER_LABEL = "praxis-mcp/server"
NETWORK_LABEL = "praxis-mcp/network"
"""``none`` or ``bridge``: for NetworkPolicies, which are a second wall and never counted on."""
TOOL_ANNOTATION = "praxis-mcp/tool"

TOOL_CONTAINER = "tool"
POD_INIT = "/.praxis-init"
INIT_KEY = "praxis-init"
CHANNEL_PORT = 7031
POD_UID = 65534
"""Whom a tool runs as whose contract names nobody: ``nobody`` almost everywhere."""
POD_GRACE = 1
"""Seconds between SIGTERM and SIGKILL at a pod's removal. Not 0: then its object is gone before its processes are."""
POD_TMP_SIZE = 256 * 1024 * 1024
"""Bytes of /tmp, and of each directory for a call's files, in memory."""
POD_ADDRESS_VARIABLE = "PRAXIS_POD_ADDRESS"
"""What the kubelet puts the pod's address into, for praxis-init to listen at."""
HIDDEN_VARIABLES = ("KUBERNETES_", POD_ADDRESS_VARIABLE)
"""Variables that the kubelet gives every container: where the API server is. And ours."""
_LONGEST_NAME = 40
_OWN_OF_IMAGES = frozenset(
    {
        "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root",
        "/run", "/sbin", "/srv", "/sys", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/local/bin",
        "/usr/local/lib", "/usr/sbin", "/usr/share", "/var", "/var/lib", "/var/log", "/var/run",
    }
)  # fmt: skip
"""Directories that images have content in: none of them may be hidden by an empty one."""
_UNITS = {
    "m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PodUser:
    """Whom a pod's container runs as: `group` None is the group that the image has the user in, else root's."""

    user: int
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a pod.

    Attributes:
        source: the fields of core/v1 Volume but its name.
        path: where it is mounted.
        sub_path: what of it is mounted; empty is all of it.
        writable: whether it can be written to.
    """

    source: Mapping[str, Any] = field(hash=False)
    path: str
    sub_path: str = ""
    writable: bool = False


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """Whose a pod is: its name, its server's id, and the reference to the server's Lease (meta/v1 OwnerReference)."""

    name: str
    server: str
    owner: Mapping[str, Any]


def pod_spec(
    blueprint: Blueprint,
    identity: PodIdentity,
    settings: KubernetesSettings,
    volumes: Sequence[Volume],
    *,
    machine: str,
    secret: bytes,
    caller: float | None = None,
    pull: str = "missing",
) -> dict[str, Any]:
    """The body of the request that creates a pod which waits for a call.

    Args:
        blueprint: all that is fixed.
        identity: see `PodIdentity`.
        settings: the engine's settings.
        volumes: praxis-init's, mounts, and what `room_for` gives.
        machine: the processor, as Kubernetes names it: ``amd64``, ``arm64``.
        secret: what the channel begins with.
        caller: seconds after which it ends where nobody has connected; None is a minute.
        pull: ``missing`` or ``never``.

    Raises:
        LimitUnsupported: the contract's user cannot be a pod's.
    """
    named = [(f"v{number}", volume) for number, volume in enumerate(volumes)]
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": POD_GRACE,
        "activeDeadlineSeconds": math.ceil(WAITER_PATIENCE + blueprint.limits.timeout + REPORT_GRACE),
        "securityContext": _pod_security(pod_user(blueprint)),
        "nodeSelector": {"kubernetes.io/os": "linux", "kubernetes.io/arch": machine, **settings.node_selector},
        "containers": [_container(blueprint, settings, named, secret, caller, pull)],
        "volumes": [{"name": name, **volume.source} for name, volume in named],
    }
    if settings.tolerations:
        spec["tolerations"] = [_toleration(item.model_dump()) for item in settings.tolerations]
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.runtime_class is not None:
        spec["runtimeClassName"] = settings.runtime_class
    if settings.service_account is not None:
        spec["serviceAccountName"] = settings.service_account
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": identity.name,
            "labels": {
                MANAGED_BY: MANAGER,
                SERVER_LABEL: identity.server,
                NETWORK_LABEL: blueprint.network.value,
            },
            "annotations": {TOOL_ANNOTATION: blueprint.tool},
            "ownerReferences": [dict(identity.owner)],
        },
        "spec": spec,
    }


def _container(
    blueprint: Blueprint,
    settings: KubernetesSettings,
    volumes: Sequence[tuple[str, Volume]],
    secret: bytes,
    caller: float | None,
    pull: str,
) -> dict[str, Any]:
    is_direct = settings.channel == "direct"
    host = f"[$({POD_ADDRESS_VARIABLE})]" if is_direct else "127.0.0.1"
    container: dict[str, Any] = {
        "name": TOOL_CONTAINER,
        "image": blueprint.image,
        "imagePullPolicy": "Never" if pull == "never" else "IfNotPresent",
        "command": wait_words(
            POD_INIT,
            WAITER_PATIENCE,
            hide=HIDDEN_VARIABLES,
            listen=f"{host}:{CHANNEL_PORT}",
            secret=secret,
            caller=caller,
        ),
        "resources": _resources(blueprint, settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": blueprint.read_only is not False,
        },
        "volumeMounts": [_volume_mount(name, volume) for name, volume in volumes],
    }
    if is_direct:
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        container["env"] = [{"name": POD_ADDRESS_VARIABLE, "valueFrom": address}]
    if blueprint.working_dir is not None:
        container["workingDir"] = blueprint.working_dir
    return container


def _volume_mount(name: str, volume: Volume) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": name, "mountPath": volume.path, "readOnly": not volume.writable}
    return {**mount, "subPath": volume.sub_path} if volume.sub_path else mount


def _pod_security(who: PodUser) -> dict[str, Any]:
    security: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": who.user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return security if who.group is None else {**security, "runAsGroup": who.group}


def _toleration(found: Mapping[str, Any]) -> dict[str, Any]:
    names = {"toleration_seconds": "tolerationSeconds"}
    return {names.get(name, name): value for name, value in found.items() if value is not None}


def _resources(blueprint: Blueprint, settings: KubernetesSettings) -> dict[str, Any]:
    limits: dict[str, str] = {}
    if blueprint.limits.cpus is not None:
        limits["cpu"] = f"{max(1, round(blueprint.limits.cpus * 1000))}m"
    if blueprint.limits.memory is not None:
        limits["memory"] = str(blueprint.limits.memory)
    requests = {
        name: limits[name] if name in limits and quantity(value) > quantity(limits[name]) else value
        for name, value in settings.requests.items()
    }
    return {name: values for name, values in (("limits", limits), ("requests", requests)) if values}


def quantity(text: str) -> Decimal:
    """The number that a quantity of Kubernetes stands for (``10m``, ``64Mi``)."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    assert match is not None, text  # the settings have checked theirs, and ours are numbers
    return Decimal(match[1]) * _UNITS[match[2]]


def pod_user(blueprint: Blueprint) -> PodUser:
    """Whom a tool runs as.

    Raises:
        LimitUnsupported: its contract says root, or a name, which only the image could resolve.
    """
    why = why_no_user(blueprint)
    if why is not None:
        raise LimitUnsupported(f"{blueprint.tool}: {why}.", remedy="Write numbers (user: 1000:1000).")
    if blueprint.user is None or _is_left_to_us(blueprint):
        return PodUser(POD_UID, POD_UID)
    user, _, group = blueprint.user.partition(":")
    return PodUser(int(user), int(group) if group else None)


def why_no_user(blueprint: Blueprint) -> str | None:
    """Why the contract's user cannot be a pod's; None where it can."""
    if blueprint.user is None or _is_left_to_us(blueprint):
        return None
    user, _, group = blueprint.user.partition(":")
    if not user.isdecimal() or not (group or "0").isdecimal():
        return f"user: {blueprint.user} is a name, and a pod's user is a number"
    if int(user) == 0:
        return f"user: {blueprint.user} is root, as whom no pod runs here"
    return None


def _is_left_to_us(blueprint: Blueprint) -> bool:
    # A plan names the server's own user where the tool writes to this machine, root where the server is root. What a
    # pod has written is written here by the server itself.
    writes = blueprint.artifact_dir is not None or any(mount.writable for mount in blueprint.mounts)
    return writes and blueprint.user == "0:0"


def init_volume(config_map: str) -> Volume:
    """praxis-init, from its ConfigMap."""
    source = {"configMap": {"name": config_map, "defaultMode": 0o555}}
    return Volume(source, POD_INIT, INIT_KEY)


def memory_volume(path: str) -> Volume:
    """An empty directory in memory."""
    return Volume({"emptyDir": {"medium": "Memory", "sizeLimit": str(POD_TMP_SIZE)}}, path, writable=True)


def room_for(blueprint: Blueprint, files: Sequence[str]) -> list[Volume]:
    """Directories that can be written to: /tmp, and those of a call's files.

    Args:
        blueprint: the tool.
        files: paths of the files of its calls.

    Raises:
        LimitUnsupported: a file is where no empty directory may be.
    """
    taken = {mount.target.rstrip("/") for mount in blueprint.mounts}
    places: list[str] = []
    if blueprint.read_only is not False and "/tmp" not in taken:  # noqa: S108
        places.append("/tmp")  # noqa: S108
    for path in sorted(files, key=lambda path: path.count("/")):  # the outer directories first
        parent = str(PurePosixPath(path).parent)
        if why := _why_no_file(path, parent, taken):
            raise LimitUnsupported(
                f"{blueprint.tool}: the file {path} cannot be in a pod: {why}.",
                remedy=f"Bind the parameter to a file below /tmp, or in a directory of its own (/input{path}).",
            )
        if not any(is_below(parent, place) for place in places):
            places.append(parent)
    return [memory_volume(place) for place in places]


def _why_no_file(path: str, parent: str, mounts: set[str]) -> str:
    if any(is_below(path, mount) for mount in mounts):
        return "it is inside a mount"
    if parent in _OWN_OF_IMAGES:
        return f"its directory is made empty for it, and {parent} is the image's own"
    return ""


def is_below(path: str, place: str) -> bool:
    """Whether a path is at that place, or below it."""
    return f"{path}/".startswith(f"{place.rstrip('/')}/")


def name_for(tool: str, suffix: str) -> str:
    """A pod's name: the tool's, as far as a name of Kubernetes can hold it (RFC 1123 label), and a suffix."""
    slug = re.sub(r"[^a-z0-9]+", "-", tool.lower())[:_LONGEST_NAME].strip("-")
    return "-".join(part for part in (MANAGER, slug, suffix) if part)
