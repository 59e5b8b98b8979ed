"""What a call has on this machine, praxis-init in its container, and what the daemon is asked to create for it (Docker
Engine API v1.41, ContainerCreate).

Where the daemon sees this machine's files praxis-init is mounted from here. Elsewhere (a daemon on another machine,
SELinux, Docker Desktop, a server that runs in a container itself) its bytes go into an anonymous volume of each
container, which is removed with it.
"""

from __future__ import annotations

import io
import platform
import sys
import tarfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.artifacts import OUTPUT_DIR_VARIABLE
from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.ownership import cache_mount
from praxis_mcp.engines.mounts.nested import Room, submounts, with_room
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import DEFAULT_PIDS, Blueprint, CallFile, Mount, Plan
from praxis_mcp.plans.view import is_nested
from praxis_mcp.support.praxis_init import OTHER_MACHINES, normalize_machine, praxis_init_path, wait_words
from praxis_mcp.support.scratch import Scratch

INIT_TARGET = "/.praxis-init"
_FILE = "init"
_USUAL_RUNTIMES = ("runc", "crun", "io.containerd.runc.v2")
_USUAL_FILTERS = ("default", "builtin", "unconfined")
"""As daemons name what they come with, and none at all."""


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


def is_usual(info: Mapping[str, Any], runtime: str | None) -> bool:
    """Whether a daemon (SystemInfo) runs containers on this machine's kernel, by the usual runtime, and as it comes.
    What the user has chosen instead (gVisor, a runtime that adds devices, a plugin that judges what may run, other
    users, a filter of the user's own) no other engine has.

    Args:
        runtime: the settings' own.
    """
    uses = runtime or info.get("DefaultRuntime") or "runc"
    plugins = info.get("Plugins") or {}
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    is_filtered = any(
        option.startswith("name=seccomp,") and option.partition("profile=")[2] not in _USUAL_FILTERS
        for option in options
    )
    is_here = info.get("KernelVersion") == platform.release()
    changed = bool(plugins.get("Authorization")) or "name=userns" in options or is_filtered
    return is_here and uses in _USUAL_RUNTIMES and not changed


def has_our_files(info: Mapping[str, Any], init: DockerInit | None) -> bool:
    """Whether a mount in a container of that daemon (SystemInfo) is what this server sees at its source, users have the
    numbers that they have on this machine, and nothing but these decides who may use it."""
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    changed = any(option.startswith(("name=userns", "name=rootless", "name=selinux")) for option in options)
    # Where praxis-init could not be mounted, the daemon sees other files.
    return init is not None and init.is_mounted and not changed


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


T = TypeVar("T")

TMP_SIZE = 256 * 1024 * 1024
"""Bytes of ``/tmp`` in a container whose root is read-only; they count against its memory limit."""


@dataclass(frozen=True, slots=True)
class Staging:
    """What a call has on this machine.

    Attributes:
        files: the call's files, each with its place on this machine.
        artifacts: the directory for artifacts, or None.
        init: praxis-init for the daemon's machine, or None where there is none; then the daemon's own init reaps, and
            nothing in the container keeps the deadline, or ends it with the server.
        room: the contract's mounts, where more may be needed to make room among them.
    """

    files: tuple[tuple[CallFile, Path], ...] = ()
    artifacts: Path | None = None
    init: DockerInit | None = None
    room: Room | None = None


@asynccontextmanager
async def stage(plan: Plan, artifacts: Path | None) -> AsyncIterator[Staging]:
    """Put what the call needs on this machine, and take away what is not kept."""
    is_crowded = is_nested(plan.blueprint)
    if not plan.call.files and not is_crowded:
        yield Staging((), artifacts)
        return
    scratch = await _written(plan, anyio.to_thread.run_sync(Scratch.make))
    try:
        files = await _written(plan, anyio.to_thread.run_sync(_write_files, scratch.path, plan.call.files))
        room = None
        if is_crowded:
            room = await _written(plan, anyio.to_thread.run_sync(with_room, plan.blueprint, scratch.path))
        yield Staging(files, artifacts, room=room)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(scratch.remove)


async def _written(plan: Plan, writing: Coroutine[Any, Any, T]) -> T:
    try:
        return await writing
    except OSError as exc:
        raise ExecutionError(f"{plan.blueprint.tool}: its files cannot be written: {exc.strerror}.") from exc


def _write_files(directory: Path, files: tuple[CallFile, ...]) -> tuple[tuple[CallFile, Path], ...]:
    places: list[tuple[CallFile, Path]] = []
    for number, file in enumerate(files):
        place = directory / str(number)
        place.write_bytes(file.content)
        # Readable by the tool's user, whatever it is; the directory keeps other users of this machine out.
        place.chmod(0o444)
        places.append((file, place))
    return tuple(places)


def container_config(
    plan: Plan, staging: Staging, labels: Mapping[str, str], *, runtime: str | None = None, auto_remove: bool = True
) -> dict[str, Any]:
    """The body of the request that creates a container which runs a call at once: without praxis-init, so that words
    and variables stand in the container's configuration.

    Raises:
        ExecutionError: a file of the call is in a mount, where it could not be without changing the host's; or a
            mount has too many file systems below it.
    """
    fixed, call = plan.blueprint, plan.call
    config = _config(fixed, list(call.argv), call.env, labels, stdin=call.stdin is not None)
    config["HostConfig"] = _host_config(fixed, staging, runtime, auto_remove)
    if not fixed.use_entrypoint:
        # The whole command as the entrypoint's and the command's words: an empty list would bring the image's own
        # back on some daemons (Podman).
        config["Entrypoint"], config["Cmd"] = config["Cmd"][:1], config["Cmd"][1:]
    return config


def waiting_config(
    blueprint: Blueprint,
    init: DockerInit,
    staging: Staging,
    labels: Mapping[str, str],
    patience: float,
    *,
    runtime: str | None = None,
) -> dict[str, Any]:
    """The body of the request that creates a container which waits for a call. Nothing of the call stands in it.

    Args:
        blueprint: all that is fixed.
        init: praxis-init.
        staging: with a file for each that the call will have.
        labels: the container's.
        patience: seconds after which the container ends if no call has come.
        runtime: OCI runtime.

    Raises:
        ExecutionError: as `container_config`.
    """
    mounts = blueprint.mounts if staging.room is None else staging.room.mounts
    # The daemon goes by the path, at which a tool may have put something else since it was judged.
    sources = [(mount.identity, mount.target) for mount in mounts if mount.identity is not None]
    words = wait_words(init.program, patience, sources=sources)
    config = _config(blueprint, words, {}, labels, stdin=True)
    config["Entrypoint"], config["Cmd"] = words[:1], words[1:]
    # What ended by the memory limit is asked of a container that has ended.
    auto_remove = blueprint.limits.memory is None
    config["HostConfig"] = _host_config(blueprint, replace(staging, init=init), runtime, auto_remove)
    return config


def _config(
    fixed: Blueprint, words: list[str], call_env: Mapping[str, str], labels: Mapping[str, str], *, stdin: bool
) -> dict[str, Any]:
    env = dict(call_env)
    if fixed.artifact_dir is not None:
        env[OUTPUT_DIR_VARIABLE] = fixed.artifact_dir
    config: dict[str, Any] = {
        "Image": fixed.image,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Cmd": words,
        "Labels": dict(labels),
        "Tty": False,
        "OpenStdin": stdin,
        "StdinOnce": stdin,
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
    }
    if fixed.user is not None:
        config["User"] = fixed.user
    if fixed.working_dir is not None:
        config["WorkingDir"] = fixed.working_dir
    return config


def _host_config(fixed: Blueprint, staging: Staging, runtime: str | None, auto_remove: bool) -> dict[str, Any]:
    limits = fixed.limits
    host: dict[str, Any] = {
        "NetworkMode": {Network.NONE: "none", Network.BRIDGE: "bridge", Network.HOST: "host"}[fixed.network],
        "Mounts": _mounts(fixed, staging),
        # Output comes from the attached stream: a log would only grow on disk.
        "LogConfig": {"Type": "none"},
        "AutoRemove": auto_remove,
        "Init": staging.init is None,
        # An init is one process more than the tool's.
        "PidsLimit": (limits.pids or DEFAULT_PIDS) + 1,
        "ReadonlyRootfs": fixed.read_only is not False,
    }
    if limits.memory is not None:
        # Equal: no swap on top (both count together, "MemorySwap: total memory limit (memory + swap)").
        host |= {"Memory": limits.memory, "MemorySwap": limits.memory}
    if limits.cpus is not None:
        host["NanoCpus"] = round(limits.cpus * 1e9)
    if fixed.privileged:
        host["Privileged"] = True
    else:
        host["SecurityOpt"] = ["no-new-privileges"]
        if fixed.drop_capabilities is not False:
            host["CapDrop"] = ["ALL"]
    if host["ReadonlyRootfs"] and all(mount["Target"] != "/tmp" for mount in host["Mounts"]):  # noqa: S108
        # exec: Docker's own default for a tmpfs is noexec, and tools compile and unpack into /tmp.
        host["Tmpfs"] = {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={TMP_SIZE}"}  # noqa: S108
    if runtime is not None:
        host["Runtime"] = runtime
    return host


def _mounts(fixed: Blueprint, staging: Staging) -> list[dict[str, Any]]:
    mounts = list(_contract_mounts(fixed.mounts if staging.room is None else staging.room.mounts))
    for file, place in staging.files:
        for mount in fixed.mounts:
            if f"{file.path}/".startswith(f"{mount.target}/"):
                raise ExecutionError(
                    f"{fixed.tool}: the file {file.path} is inside the mount {mount.target}.",
                    remedy="Bind the parameter to a file outside the contract's mounts.",
                )
        mounts.append(_bind(place, file.path))
    if staging.artifacts is not None and fixed.artifact_dir is not None:
        mounts.append(_bind(staging.artifacts, fixed.artifact_dir, writable=True))
    mounts += [cache_mount(fixed, directory) for directory in fixed.cache_dirs]
    if staging.init is not None:
        mounts.append(staging.init.mount)
    return mounts


def _contract_mounts(mounts: Sequence[Mount]) -> Iterator[dict[str, Any]]:
    for mount in mounts:
        yield _bind(mount.source, mount.target, writable=mount.writable)
        if mount.writable:
            continue
        # What is mounted below a read-only mount stays writable before Docker 25, on kernels before 5.12, and on
        # Podman. So nothing of it comes along by itself, and each is mounted read-only singly.
        base = mount.target.rstrip("/") + "/"
        over = tuple(f"{other.target}/" for other in mounts if f"{other.target}/".startswith(base) and other != mount)
        for place in submounts(mount.source):
            target = base + place[len(str(mount.source).rstrip("/")) + 1 :]
            if not f"{target}/".startswith(over):  # where the contract has something of its own
                yield _bind(place, target)


def _bind(source: Path | str, target: str, *, writable: bool = False) -> dict[str, Any]:
    # The Mounts API refuses a source that is missing; Binds would create it, as root.
    bind = {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": not writable}
    return bind if writable else {**bind, "BindOptions": {"NonRecursive": True}}
