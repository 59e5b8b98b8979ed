"""What comes into pods from this machine and is not of one call: praxis-init, and what contracts mount read-only, by
immutable ConfigMaps that are named by their content, under a key that only this server knows: nobody can have made one
of that name before. The server's Lease owns them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import secrets
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread

from praxis_mcp.engines.file_states import Stamp, last_change, stamp_of
from praxis_mcp.engines.kubernetes.answers import Refusal
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.spec import (
    INIT_KEY,
    MANAGED_BY,
    MANAGER,
    SERVER_LABEL,
    Volume,
    init_volume,
    is_below,
)
from praxis_mcp.errors import EngineUnavailable, ExecutionError, LimitUnsupported
from praxis_mcp.plans.model import Blueprint, Mount
from praxis_mcp.settings.kubernetes import KubernetesSettings
from praxis_mcp.support.praxis_init import OTHER_MACHINES, normalize_machine, praxis_init_path
from praxis_mcp.support.rooted import Entry, HeldDirectory, identity_of, walk

MAX_CONFIG_MAP = 1_000_000
"""Bytes in one ConfigMap; the API server takes 1 MiB with names and all."""
MAX_CONTENT = 8 * 1024 * 1024
"""Bytes that a contract's read-only mounts may have together."""
MAX_CONTENT_FILES = 2000
YOUNG_FILE = 2.0
"""Seconds before it is read within which a file must not have changed for its times to tell a later change: a second
one may get the same times (some file systems count in steps of two seconds)."""
MAX_KEPT_MAPS = 128
"""ConfigMaps of one server at a time; of more, the oldest go. A pod that runs has its content already."""
_TOP = "content"
_ARCH = "kubernetes.io/arch"
_KUBERNETES_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_INTO_IMAGE = "Put it into the image, or mount less."


@dataclass(frozen=True, slots=True)
class ContentFile:
    """A file: path below what is mounted, permission bits, content."""

    path: str
    mode: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap to be: content by key."""

    data: tuple[tuple[str, bytes], ...] = field(repr=False)

    def name(self, key: bytes, server: str, owner: str) -> str:
        """Its name: by its content, for one Lease of one server. Under a new Lease it must not be taken for the old
        one's, which the cluster is about to remove.

        Args:
            key: of the server's own.
            server: the server's id.
            owner: uid of the Lease.
        """
        digest = hashlib.blake2b(owner.encode(), key=key, digest_size=16)
        for part, value in self.data:
            digest.update(b"%b %d %b" % (part.encode(), len(value), value))
        return f"{MANAGER}-{server[:16]}-{digest.hexdigest()}"

    def body(self, name: str, server: str, owner: Mapping[str, Any]) -> dict[str, Any]:
        """The body of the request that makes it."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "labels": {MANAGED_BY: MANAGER, SERVER_LABEL: server},
                "ownerReferences": [dict(owner)],
            },
            "immutable": True,
            "binaryData": {key: base64.b64encode(value).decode() for key, value in self.data},
        }


class ConfigMaps:
    """The ConfigMaps of one server."""

    def __init__(self, cluster: Cluster, server: str) -> None:
        self._cluster = cluster
        self._server = server
        self._key = secrets.token_bytes(32)
        self._made: dict[tuple[str, str], None] = {}

    async def put(self, maps: Sequence[ConfigMap], owner: Mapping[str, Any]) -> list[str]:
        """Make those that are not there; their names.

        Raises:
            ExecutionError: somebody else has made one of that name.
            Refusal, ClusterLost: as the cluster's own.
        """
        names: list[str] = []
        for each in maps:
            name = await anyio.to_thread.run_sync(each.name, self._key, self._server, str(owner["uid"]))
            names.append(name)
            known = (str(owner["uid"]), name)
            if known in self._made:
                self._made[known] = self._made.pop(known)  # the latest
                continue
            body = each.body(name, self._server, owner)
            try:
                await self._cluster.create(self._cluster.config_maps(), body)
            except Refusal as exc:
                if not exc.is_taken:
                    raise
                # Ours, whose answer was lost. Or of somebody who has seen the name in a pod, and one of ours removed.
                found = await self._cluster.get(self._cluster.config_maps(name))
                if any(found.get(part) != body.get(part) for part in ("immutable", "binaryData", "data")):
                    raise ExecutionError(
                        f"The ConfigMap {name} in the namespace {self._cluster.namespace} has the name of one of this "
                        "server's, and another content.",
                        remedy="Find out who may remove and make ConfigMaps there, and remove it (kubectl delete "
                        "configmap).",
                    ) from exc
            self._made[known] = None
        await self._remove_old(owner)
        return names

    def forget(self) -> None:
        """Look again for all: a pod could not be set up, and somebody may have removed one."""
        self._made.clear()

    async def _remove_old(self, owner: Mapping[str, Any]) -> None:
        while len(self._made) > MAX_KEPT_MAPS:
            uid, name = next(iter(self._made))
            del self._made[uid, name]
            if uid == owner["uid"]:
                try:
                    await self._cluster.delete(self._cluster.config_maps(name))
                except Refusal as exc:
                    if not exc.is_missing:
                        raise


@dataclass(frozen=True, slots=True)
class MountContent:
    """What a read-only mount holds.

    Attributes:
        mount: the mount.
        is_file: whether it is a file itself.
        files: what is in it; of a file, itself, with an empty path.
    """

    mount: Mount
    is_file: bool
    files: tuple[ContentFile, ...]

    def pack(self) -> list[list[tuple[str, ContentFile]]]:
        """Its files with a key each, in as many ConfigMaps as it takes."""
        packed: list[list[tuple[str, ContentFile]]] = []
        room = 0
        for number, file in enumerate(self.files):
            if len(file.data) > room or not packed:
                packed.append([])
                room = MAX_CONFIG_MAP
            packed[-1].append((f"f{number}", file))
            room -= len(file.data)
        return packed

    def volume(self, names: Sequence[str]) -> Volume:
        """The volume that shows it.

        Args:
            names: of the ConfigMaps that `pack` gave.
        """
        sources = [
            {
                "configMap": {
                    "name": name,
                    "items": [
                        {"key": key, "path": f"{_TOP}/{file.path}".rstrip("/"), "mode": file.mode} for key, file in part
                    ],
                }
            }
            for name, part in zip(names, self.pack(), strict=True)
        ]
        # By a path within the volume: at its top the kubelet shows links to directories of its own.
        return Volume({"projected": {"sources": sources}}, self.mount.target, _TOP)


@dataclass(frozen=True, slots=True)
class ContentStamp:
    """What tells a change of read-only mounts without reading them: which files they have, their sizes and times.

    It misses changes on a file system whose times are those of another machine, if that one's clock is late by more
    than `YOUNG_FILE`; by a program that has a file in its memory (mmap), until the kernel notes that; and, on Windows,
    with times that are set back. A pod that waits then has the content from before.

    Attributes:
        entries: path and stamp of each file and directory.
        is_telling: whether none of them had changed just before.
    """

    entries: tuple[tuple[str, Stamp], ...] = field(repr=False)
    is_telling: bool

    @classmethod
    def of(cls, blueprint: Blueprint) -> ContentStamp:
        """As they are now.

        Raises:
            OSError: one of them cannot be looked at.
            ValueError: they have too many files.
        """
        old = time.time_ns() - int(YOUNG_FILE * 10**9)
        mounts = [mount for mount in blueprint.own_mounts if not mount.writable]
        entries = tuple(entry for mount in mounts for entry in sorted(_entries_of(mount)))
        files = [stamp for _, stamp in entries if stat.S_ISREG(stamp[2])]
        return cls(entries, is_telling=all(last_change(stamp) < old for stamp in files))

    def shows(self, blueprint: Blueprint) -> bool:
        """Whether they surely are what they were; else they have to be read."""
        try:
            return self.is_telling and self.entries == ContentStamp.of(blueprint).entries
        except (OSError, ValueError):
            return False


@dataclass(frozen=True, slots=True)
class PodContent:
    """praxis-init and the content of a blueprint's read-only mounts, as they were when they were read; `stamp` is of
    the moment before."""

    init: bytes = field(repr=False)
    mounts: tuple[MountContent, ...]
    stamp: ContentStamp | None = None

    @classmethod
    async def read(cls, blueprint: Blueprint, options: KubernetesSettings) -> PodContent:
        """Read it.

        Raises:
            LimitUnsupported: a mount cannot be brought into a pod; says why.
            ExecutionError: it cannot be read.
            EngineUnavailable: there is no praxis-init for the nodes.
        """
        return await anyio.to_thread.run_sync(_read, blueprint, options)

    @staticmethod
    def machine(options: KubernetesSettings) -> str:
        """The processor of the nodes, as Kubernetes names it: the settings' choice, else this machine's.

        Raises:
            EngineUnavailable: there is no praxis-init for it.
        """
        chosen = options.node_selector.get(_ARCH) or platform.machine()
        known = normalize_machine(chosen)
        if known is None:
            raise EngineUnavailable(
                f"praxis-init, which every pod begins with, is not built for {chosen} machines.",
                remedy=f"Choose nodes that it is for: engines.kubernetes.node_selector: {{{_ARCH}: amd64}}.",
            )
        return _KUBERNETES_NAMES[known]

    async def is_current(self, blueprint: Blueprint) -> bool:
        """Whether the mounts of a call hold what was read here: by their stamp (see `ContentStamp`), and where that
        does not say so, by reading them once more.

        Raises:
            LimitUnsupported, ExecutionError: as `read`.
        """
        return not self.mounts or await anyio.to_thread.run_sync(self._is_current, blueprint)

    def _is_current(self, blueprint: Blueprint) -> bool:
        return (self.stamp is not None and self.stamp.shows(blueprint)) or self.mounts == _read_mounts(blueprint)

    async def put(self, maps: ConfigMaps, owner: Mapping[str, Any]) -> list[Volume]:
        """Have it in the cluster; the volumes that show it.

        Raises:
            Refusal, ClusterLost: as the cluster's own.
        """
        (init,) = await maps.put([ConfigMap(((INIT_KEY, self.init),))], owner)
        volumes = [init_volume(init)]
        for content in self.mounts:
            parts = [ConfigMap(tuple((key, file.data) for key, file in part)) for part in content.pack()]
            volumes.append(content.volume(await maps.put(parts, owner)))
        return volumes


def _read(blueprint: Blueprint, options: KubernetesSettings) -> PodContent:
    machine = PodContent.machine(options)
    path = praxis_init_path(machine)
    if path is None:
        raise EngineUnavailable(
            f"This copy of praxis-mcp has no praxis-init for {machine}, which every pod begins with.",
            remedy=OTHER_MACHINES,
        )
    init = path.read_bytes()
    if len(init) > MAX_CONFIG_MAP:
        raise EngineUnavailable(
            f"{path} is larger than the {MAX_CONFIG_MAP // 1000} kB of a ConfigMap, which brings it into pods.",
            remedy="Build it by zig, which makes a small one: PRAXIS_NATIVE_COMPILER=zig python native/build.py.",
        )
    try:
        stamp = ContentStamp.of(blueprint)
    except (OSError, ValueError):  # which reading them says better
        stamp = None
    return PodContent(init, _read_mounts(blueprint), stamp)


def _read_mounts(blueprint: Blueprint) -> tuple[MountContent, ...]:
    """Raises as `PodContent.read`."""
    mounts = blueprint.own_mounts
    left = MAX_CONTENT
    found: list[MountContent] = []
    for mount in mounts:
        _check_place(blueprint, mount, mounts)
        if mount.writable:
            continue
        try:
            content = _content_of(mount, left)
        except OSError as exc:
            raise ExecutionError(
                f"{blueprint.tool}: {exc.filename or mount.source}, which it mounts, cannot be read: {exc.strerror}.",
                remedy="Fix the mount in the contract, or the permissions of what it mounts.",
            ) from exc
        except ValueError as exc:
            raise LimitUnsupported(
                f"{blueprint.tool}: {mount.source}, which it mounts, cannot be brought into a pod: {exc}.",
                remedy=_INTO_IMAGE,
            ) from exc
        left -= sum(len(file.data) for file in content.files)
        found.append(content)
    return tuple(found)


def _check_place(blueprint: Blueprint, mount: Mount, mounts: Sequence[Mount]) -> None:
    for other in mounts:
        if other is not mount and not other.writable and is_below(mount.target, other.target):
            raise LimitUnsupported(
                f"{blueprint.tool}: its mount {mount.target} is within {other.target}, and nothing can be mounted in "
                "a read-only mount of a pod.",
                remedy="Mount it elsewhere.",
            )
    if mount.writable and mount.source.is_file():
        raise LimitUnsupported(
            f"{blueprint.tool}: its mount {mount.target} is a file that it may write to, and only directories can be "
            "brought back from a pod.",
            remedy="Mount the directory around it.",
        )


def _entries_of(mount: Mount) -> Iterator[tuple[str, Stamp]]:
    if stat.S_ISREG(os.lstat(mount.source).st_mode):
        with HeldDirectory.at(mount.source.parent, listed=False) as around:
            descriptor = around.read(mount.source.name)
            try:
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        _check_identity(mount, status)
        yield "", stamp_of(status)
        return
    with HeldDirectory.at(mount.source) as top:
        _check_identity(mount, top.status)
        yield "", stamp_of(top.status)
        for path, _, entry in _walked(top):
            yield path, stamp_of(entry.status)


def _check_identity(mount: Mount, status: os.stat_result) -> None:
    if mount.identity not in (None, identity_of(status)):
        raise OSError(0, "it was replaced after it had been checked", str(mount.source))


def _walked(top: HeldDirectory) -> Iterator[tuple[str, HeldDirectory, Entry]]:
    for count, found in enumerate(walk(top)):
        if count >= MAX_CONTENT_FILES:
            raise ValueError(f"it has more than {MAX_CONTENT_FILES} files")
        yield found


def _content_of(mount: Mount, left: int) -> MountContent:
    """Raises `ValueError` with what a ConfigMap cannot hold."""
    status = os.lstat(mount.source)
    if stat.S_ISREG(status.st_mode):
        with HeldDirectory.at(mount.source.parent, listed=False) as around:
            file = _file(around, mount.source.name, "", left, mount)
        return MountContent(mount, True, (file,))
    with HeldDirectory.at(mount.source) as top:
        _check_identity(mount, top.status)
        return MountContent(mount, False, tuple(sorted(_files(top, left), key=lambda file: file.path)))


def _files(top: HeldDirectory, left: int) -> Iterator[ContentFile]:
    directories: set[str] = set()
    filled: set[str] = {""}
    for path, here, entry in _walked(top):
        filled.add(path.rpartition("/")[0])
        if stat.S_ISDIR(entry.status.st_mode):
            directories.add(path)
            continue
        if not stat.S_ISREG(entry.status.st_mode):
            kind = "a link" if stat.S_ISLNK(entry.status.st_mode) else "no file"
            raise ValueError(f"{path} in it is {kind}, and ConfigMaps hold files only")
        file = _file(here, entry.name, path, left)
        left -= len(file.data)
        yield file
    if empty := sorted(directories - filled):
        raise ValueError(f"{empty[0]} in it is an empty directory, and ConfigMaps hold files only")


def _file(here: HeldDirectory, name: str, path: str, left: int, mount: Mount | None = None) -> ContentFile:
    descriptor = here.read(name)
    try:
        status = os.fstat(descriptor)
        if mount is not None:
            _check_identity(mount, status)
        most = min(left, MAX_CONFIG_MAP)
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            data = stream.read(most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise ValueError(
            f"{path or 'it'} is larger than {MAX_CONFIG_MAP // 1000} kB"
            if most == MAX_CONFIG_MAP
            else f"with {path or 'it'} the mounts are more than {MAX_CONTENT // 1024**2} MiB"
        )
    try:
        path.encode()
    except UnicodeEncodeError as exc:
        raise ValueError("the name of a file in it is not UTF-8") from exc
    # For whomever the tool runs as.
    return ContentFile(path, 0o555 if status.st_mode & 0o111 else 0o444, data)
