"""praxis-init in the containers of a daemon: where it is there, and how it comes there.

Where the daemon sees this machine's files it is mounted from here. Elsewhere (a daemon on another machine, SELinux,
Docker Desktop, a server that runs in a container itself) its bytes go into an anonymous volume of each container, which
is removed with it.
"""

from __future__ import annotations

import io
import platform
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import anyio.to_thread

from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.support.praxis_init import OTHER_MACHINES, normalize_machine, praxis_init_path

INIT_TARGET = "/.praxis-init"
_FILE = "init"


@dataclass(frozen=True, slots=True)
class DockerInit:
    """praxis-init for a daemon's machine.

    Attributes:
        path: the program on this machine.
        is_mounted: whether it is mounted from here, and not copied.
    """

    path: Path
    is_mounted: bool

    @property
    def program(self) -> str:
        """Where it is in a container."""
        return INIT_TARGET if self.is_mounted else f"{INIT_TARGET}/{_FILE}"

    @property
    def mount(self) -> dict[str, Any]:
        """The mount that brings it, or the volume that it is copied into (Docker Engine API, Mount)."""
        if not self.is_mounted:
            return {"Type": "volume", "Target": INIT_TARGET, "VolumeOptions": {"NoCopy": True}}
        bind = {"Type": "bind", "Source": str(self.path), "Target": INIT_TARGET, "ReadOnly": True}
        return {**bind, "BindOptions": {"NonRecursive": True}}

    def is_named_in(self, explanation: str) -> bool:
        """Whether a refusal of the daemon is about praxis-init: it does not see the file, or may not execute it."""
        return INIT_TARGET in explanation or (self.is_mounted and str(self.path) in explanation)

    @property
    def other_way(self) -> DockerInit | None:
        """What is left to try where the daemon refuses this way."""
        return replace(self, is_mounted=False) if self.is_mounted else None

    async def put(self, daemon: DockerDaemon, container: str) -> None:
        """Copy it into a container that has not been started; nothing where it is mounted.

        Raises:
            Refusal, ExecutionError: as the daemon's own.
        """
        if not self.is_mounted:
            await daemon.put(container, INIT_TARGET, await anyio.to_thread.run_sync(_archive, self.path))


def init_for(daemon: DockerDaemon, info: Mapping[str, Any]) -> DockerInit | None:
    """praxis-init for the machine that a daemon describes (SystemInfo); None where there is none for it."""
    path = praxis_init_path(str(info.get("Architecture", "")))
    if path is None or str(info.get("OSType", "linux")).lower() != "linux":
        return None
    # Docker Desktop does not share the folders that packages are installed in, and under SELinux a container may not
    # execute files that carry the labels of the host's packages.
    has_labels = any("selinux" in str(option) for option in info.get("SecurityOptions") or ())
    return DockerInit(path, is_mounted=sys.platform == "linux" and daemon.is_local and not has_labels)


def why_no_init(info: Mapping[str, Any]) -> str:
    """Why `init_for` finds none."""
    machine = str(info.get("Architecture", ""))
    if normalize_machine(machine) is None:
        return f"there is no praxis-init for a {machine or 'machine of this kind'}"
    if normalize_machine(machine) != normalize_machine(platform.machine()):
        return f"this copy of praxis-mcp has no praxis-init for {machine}: {OTHER_MACHINES}"
    return "this copy of praxis-mcp was built without praxis-init"


@cache
def _archive(path: Path) -> bytes:
    entry = tarfile.TarInfo(_FILE)
    program = path.read_bytes()
    entry.size, entry.mode = len(program), 0o755
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(program))
    return content.getvalue()
