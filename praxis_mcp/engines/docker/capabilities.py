"""What a Docker daemon can enforce and provide."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from praxis_mcp.engines.base import EngineCapabilities
from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.plans.model import Capability

_ALWAYS = frozenset(
    {
        Capability.IMAGES, Capability.TIMEOUT, Capability.NETWORK_NONE, Capability.NETWORK_BRIDGE,
        Capability.NETWORK_HOST, Capability.READ_ONLY_ROOT, Capability.WRITABLE_ROOT, Capability.USER,
        Capability.PRIVILEGED, Capability.DROP_CAPABILITIES, Capability.CACHE_DIRS,
    }
)  # fmt: skip
_LOCAL_ONLY = (Capability.MOUNTS, Capability.WRITABLE_MOUNTS, Capability.FILES, Capability.ARTIFACTS)
_CONTROLLED = {
    Capability.MEMORY_LIMIT: "MemoryLimit",
    Capability.CPU_LIMIT: "CpuCfsQuota",
    Capability.PIDS_LIMIT: "PidsLimit",
}


def capabilities_of(daemon: DockerDaemon, info: Mapping[str, Any]) -> EngineCapabilities:
    """What a daemon can enforce, by what it says of itself (SystemInfo)."""
    enforces = set(_ALWAYS)
    notes: dict[Capability, str] = {}
    if str(info.get("OSType", "linux")).lower() != "linux":
        notes = dict.fromkeys(Capability, "the Docker daemon runs Windows containers")
        return EngineCapabilities("docker", "container", frozenset(), MappingProxyType(notes))
    without_cgroups = info.get("CgroupDriver") == "none"
    for capability, key in _CONTROLLED.items():
        if info.get(key) and not without_cgroups:
            enforces.add(capability)
        else:
            notes[capability] = (
                "the rootless Docker daemon has no cgroups; see 'Limiting resources' in Docker's rootless guide"
                if without_cgroups
                else "the daemon's kernel does not support it"
            )
    for capability in _LOCAL_ONLY:
        if daemon.is_local:
            enforces.add(capability)
        else:
            notes[capability] = f"the Docker daemon at {daemon.address} does not see this machine's files"
    if daemon.carries_stdin:
        enforces.add(Capability.STDIN)
    else:
        notes[Capability.STDIN] = "over TLS or a Windows pipe, standard input cannot be ended"
    return EngineCapabilities("docker", "container", frozenset(enforces), MappingProxyType(notes))
