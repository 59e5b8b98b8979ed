"""Host files and directories that a call sees: brought into the engine, each writable one by one call at a time, and
mounted within one another: the engine makes no place in a read-only mount, and a later mount takes away all that is at
or below it."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio
import anyio.to_thread

from praxis_mcp.engines.dagger.errors import QueryFailed
from praxis_mcp.engines.dagger.query import Field
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.mounts.locks import real_source
from praxis_mcp.engines.mounts.write_back import STAGING
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Blueprint, Mount
from praxis_mcp.plans.paths import open_mount
from praxis_mcp.plans.view import Layer, View, depth, is_below, is_nested, list_layers, start_directories
from praxis_mcp.support.rooted import MAX_WALK_DEPTH, HeldDirectory, identity_of, walk

_IDS = re.compile(r"\d+(:\d+)?")
_MAX_STAMPED_ENTRIES = 2000
"""Entries up to which it is worth a look whether a directory has changed since it was last brought in."""
_RACY = 2.0
"""Seconds for which a change is too recent to be distinguished from the next one by its time."""

_Signature = tuple[tuple[object, ...], ...]
_Key = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class _Known:
    """What a path held when it was last looked at, and how to tell whether it does still."""

    signature: _Signature | None
    id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A mount whose content is in the engine.

    Attributes:
        mount: the mount.
        id: of the `Directory` or `File`, in its session.
        digest: of the content.
        is_directory: which of the two.
        key: what the session remembers it by.
        identity: device and inode of the directory, or of the one that the file is in.
        owner: user that it belongs to where it is mounted, unless it does already.
    """

    mount: Mount
    id: str
    digest: str
    is_directory: bool
    key: _Key
    identity: tuple[int, int]
    owner: str | None = None

    def is_latest(self, session: Session) -> bool:
        """Whether this is what was there when the mount was last looked at; looks at nothing itself."""
        known: _Known | None = session.recall(self.key)
        return known is not None and known.digest == self.digest

    def steps(self, session: Session) -> Field:
        """The field that mounts it in a container."""
        arguments: dict[str, object] = {"path": self.mount.target, "source": self.id}
        if self.owner is not None:
            arguments["owner"] = self.owner
        if not self.is_directory:
            return Field("withMountedFile", arguments)
        if not self.mount.writable and session.schema.has("Container", "withMountedDirectory", "readOnly"):
            arguments["readOnly"] = True
        return Field("withMountedDirectory", arguments)


async def upload_mount(session: Session, mount: Mount, owner: str | None, tool: str) -> Upload:
    """Bring a mount's content into the engine; what has not changed since the last time is not looked at again.

    Args:
        session: where it is used.
        mount: the mount.
        owner: user that the content belongs to in the container; None is root.
        tool: the tool's name, for messages.

    Raises:
        ExecutionError: it is neither file nor directory, cannot be read, or changes all the time.
    """
    source = str(mount.source) if mount.identity is not None else str(real_source(mount))
    try:
        found = await anyio.to_thread.run_sync(_inspect, source)
        await _check_identity(mount)
    except OSError as exc:
        raise ExecutionError(f"{tool} mounts {mount.source}, which cannot be read: {exc.strerror}.") from exc
    if found.unreadable is not None:
        raise ExecutionError(
            f"{tool} mounts {mount.source}, in which the server's user may not read {found.unreadable}.",
            remedy="Let that user read it, or mount a directory without it: Dagger takes copies of files.",
        )
    mode, signature = found.mode, found.signature
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise ExecutionError(
            f"{tool} mounts {mount.source}, which is neither a file nor a directory.",
            remedy="Dagger takes copies of files; use engine: docker for sockets and devices.",
        )
    is_directory = stat.S_ISDIR(mode)
    # Only the container knows whose name that is; by numbers it is done once an upload, not once a call.
    name = owner if owner is not None and not _IDS.fullmatch(owner) else None
    numbers = owner if name is None else None
    key = ("upload", source, numbers)
    known: _Known | None = session.recall(key)
    if known is not None and signature is not None and known.signature == signature:
        return Upload(mount, known.id, known.digest, is_directory, key, found.identity, name)
    try:
        upload_id, digest = await _upload(session, source, is_directory, numbers)
    except QueryFailed as exc:
        raise ExecutionError(
            f"{tool} mounts {mount.source}, which the Dagger engine cannot take in: {exc.message}.",
            remedy="Nothing else may write to it at that moment, and the server must be able to read it.",
        ) from exc
    await _check_identity(mount)
    session.remember(key, _Known(signature, upload_id, digest))
    return Upload(mount, upload_id, digest, is_directory, key, found.identity, name)


async def _check_identity(mount: Mount) -> None:
    """See to it that no other file or directory has taken the place of what was judged.

    Dagger goes by the path, so this is done before it reads, and after.
    """
    if mount.identity is not None:
        os.close(await anyio.to_thread.run_sync(open_mount, mount))


async def _upload(session: Session, source: str, is_directory: bool, owner: str | None) -> tuple[str, str]:
    kind = "directory" if is_directory else "file"
    # noCache: a session would otherwise answer with what the path held the first time.
    arguments: dict[str, object] = {"path": source, "noCache": True}
    if is_directory:
        arguments["exclude"] = [f"**/{STAGING}*"]
    steps = [Field("host"), Field(kind, arguments)]
    if owner is not None:
        own = {"path": "/", "owner": owner} if is_directory else {"owner": owner}
        steps.append(Field("chown", own))
    found = await session.select(steps, Field("id"), Field("digest"))
    return str(found["id"]), str(found["digest"])


@dataclass(frozen=True, slots=True)
class _Inspected:
    """What a look at a path has found.

    Attributes:
        mode: of the path.
        identity: device and inode of the directory, or of the one that the file is in.
        signature: changes whenever the content does; None where that is dear, or unsure.
        unreadable: what of it this user may not read.
    """

    mode: int
    identity: tuple[int, int]
    signature: _Signature | None = None
    unreadable: str | None = None


def _inspect(source: str) -> _Inspected:
    above, name = os.path.split(source)
    with HeldDirectory.at(above, listed=False) as around:
        status = around.look(name) if name else around.status
        if status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        if not stat.S_ISDIR(status.st_mode):
            unreadable = source if stat.S_ISREG(status.st_mode) and not around.readable(name, status) else None
            signature = (_entry("", status),) if status.st_ctime < time.time() - _RACY else None
            return _Inspected(status.st_mode, identity_of(around.status), signature, unreadable)
        with around.enter(name or ".") as top:
            return _inspect_directory(top)


def _inspect_directory(top: HeldDirectory) -> _Inspected:
    status = top.status
    identity = identity_of(status)
    found: list[tuple[object, ...]] = [_entry("", status)]
    newest = status.st_ctime
    is_whole = True
    for path, here, (name, inner) in walk(top):
        if name.startswith(STAGING):
            continue
        if (stat.S_ISREG(inner.st_mode) or stat.S_ISDIR(inner.st_mode)) and not here.readable(name, inner):
            if here.look(name) is None:  # removed just now
                continue
            return _Inspected(status.st_mode, identity, None, here.path_of(name))
        newest = max(newest, inner.st_ctime)
        if len(found) < _MAX_STAMPED_ENTRIES:
            found.append(_entry(path, inner))
        if stat.S_ISDIR(inner.st_mode) and path.count("/") >= MAX_WALK_DEPTH:
            is_whole = False
    if not is_whole or newest > time.time() - _RACY or len(found) >= _MAX_STAMPED_ENTRIES:
        return _Inspected(status.st_mode, identity)
    return _Inspected(status.st_mode, identity, tuple(sorted(found, key=lambda item: str(item[0]))))


def _entry(path: str, status: os.stat_result) -> tuple[object, ...]:
    return path, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


_MountPoint = tuple[str, bool]
"""A path below a mount, and whether a directory is there."""


def find_missing_mount_points(blueprint: Blueprint) -> dict[str, tuple[_MountPoint, ...]]:
    """What read-only mounts lack that something else may lie there, by target. Looks at files.

    Raises:
        ExecutionError: something has no place.
    """
    if not is_nested(blueprint):
        return {}
    view: View[Layer] = View()
    owners: dict[int, str] = {}
    found: dict[str, list[_MountPoint]] = {}

    def make_place(path: str, *, is_directory: bool) -> str:
        place = view.resolve(path)
        gap = view.find_gap(place, is_directory=is_directory)
        if gap is not None:
            below = place[len(view.layers[gap.number].path) :].lstrip("/")
            found.setdefault(owners[gap.number], []).append((below, is_directory))
        return place

    for path, mount in list_layers(blueprint):
        place = make_place(path, is_directory=mount is None or os.path.isdir(mount.source))  # noqa: PTH112
        owners[len(view.layers)] = path
        view.layers.append(Layer(place, None) if mount is None else Layer(place, str(mount.source), mount.writable))
    for path in start_directories(blueprint):
        make_place(path, is_directory=True)
    return {target: tuple(places) for target, places in found.items()}


async def make_shield(session: Session, mount: Mount, uploads: Sequence[Upload]) -> Upload:
    """A part of an upload that is to lie read-only on top of it; nothing is brought in once more.

    Args:
        session: where the uploads are.
        mount: the part; a directory on the way to it needs none, since what a call moved is looked at in the end.
        uploads: of which one holds it.

    Raises:
        QueryFailed: the engine does not give it.
    """
    outer = max(
        (item for item in uploads if mount.source.is_relative_to(item.mount.source) and item.mount.writable),
        key=lambda item: len(item.mount.source.parts),
    )
    is_directory = await anyio.to_thread.run_sync(mount.source.is_dir)
    kind, below = "directory" if is_directory else "file", str(mount.source.relative_to(outer.mount.source))
    steps = [Field("loadDirectoryFromID", {"id": outer.id}), Field(kind, {"path": below})]
    found = str((await session.select(steps, Field("id")))["id"])
    return replace(outer, mount=mount, id=found, is_directory=is_directory)


async def add_mount_points(session: Session, upload: Upload, places: Sequence[_MountPoint]) -> Upload:
    """The upload with empty directories and files where something else will lie.

    Raises:
        QueryFailed: the engine cannot make them.
    """
    steps = [Field("loadDirectoryFromID", {"id": upload.id})]
    for path, is_directory in places:
        if is_directory:
            steps.append(Field("withNewDirectory", {"path": path, "permissions": 0o755}))
        else:
            steps.append(Field("withNewFile", {"path": path, "contents": "", "permissions": 0o644}))

    key = ("places", upload.mount.source, upload.mount.target)
    known: tuple[object, str] | None = session.recall(key)
    if known is not None and known[0] == (upload.id, places):
        return replace(upload, id=known[1])
    found = str((await session.select(steps, Field("id")))["id"])
    session.remember(key, ((upload.id, places), found))
    return replace(upload, id=found)


def mount_steps(session: Session, uploads: Sequence[Upload], own: Sequence[Field]) -> list[Field]:
    """The fields that mount the uploads, and once more what the container has of its own below any of them.

    Args:
        session: where they are.
        uploads: the contract's mounts.
        own: the fields that have mounted caches and the directory for artifacts.
    """
    targets = [item.mount.target for item in uploads]
    steps = [(item.mount.target, item.steps(session)) for item in uploads]
    steps += [(path, field) for field in own if is_below(path := str(field.arguments["path"]), targets)]
    return [field for _, field in sorted(steps, key=lambda item: depth(item[0]))]
