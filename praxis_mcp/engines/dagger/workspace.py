"""Host files and directories that a call sees: brought into the engine, each writable one by one call at a time."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from praxis_mcp.engines.dagger.errors import QueryFailed
from praxis_mcp.engines.dagger.query import Field, chain, value_at
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.mounts.write_back import STAGING
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Mount
from praxis_mcp.plans.paths import open_mount
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


class WorkspaceLocks:
    """Lets one call at a time have a writable host path, or any path inside or around it.

    Two calls that changed the same directory at once would undo each other's changes when they are written back, and
    Dagger refuses a directory that changes while it is read.
    """

    def __init__(self) -> None:
        self._held: list[Path] = []
        self._released = anyio.Condition()

    @asynccontextmanager
    async def hold(self, mounts: Iterable[Mount]) -> AsyncIterator[None]:
        """Hold the writable ones of the mounts; waits until no other call holds any of them."""
        wanted = [real_source(mount) for mount in mounts if mount.writable]
        if not wanted:
            yield
            return
        async with self._released:
            while any(_overlap(one, other) for one in wanted for other in self._held):
                await self._released.wait()
            self._held += wanted
        try:
            yield
        finally:
            for path in wanted:
                self._held.remove(path)
            with anyio.CancelScope(shield=True):
                async with self._released:
                    self._released.notify_all()

    @asynccontextmanager
    async def quiet(self, mount: Mount, own: Iterable[Mount]) -> AsyncIterator[None]:
        """Wait until no call writes changes back to where a read-only mount is; only while it is brought in.

        `own`: all mounts of the call, whose writable ones it holds already.
        """
        path = real_source(mount)
        held = (real_source(item) for item in own if item.writable)
        if any(_overlap(path, other) for other in held):
            yield
            return
        async with self.hold([Mount(mount.source, mount.target, writable=True)]):
            yield


def real_source(mount: Mount) -> Path:
    """Where a mount really is, links resolved."""
    return Path(os.path.realpath(mount.source))


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


async def upload(session: Session, mount: Mount, owner: str | None, tool: str) -> Upload:
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
        found = await anyio.to_thread.run_sync(_look, source)
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
        upload_id, digest = await _bring(session, source, is_directory, numbers)
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


async def _bring(session: Session, source: str, is_directory: bool, owner: str | None) -> tuple[str, str]:
    kind = "directory" if is_directory else "file"
    # noCache: a session would otherwise answer with what the path held the first time.
    arguments: dict[str, object] = {"path": source, "noCache": True}
    if is_directory:
        arguments["exclude"] = [f"**/{STAGING}*"]
    steps = [Field("host"), Field(kind, arguments)]
    if owner is not None:
        own = {"path": "/", "owner": owner} if is_directory else {"owner": owner}
        steps.append(Field("chown", own))
    answer = await session.query(chain(steps, Field("id"), Field("digest")))
    found = value_at(answer, *(step.name for step in steps))
    return str(found["id"]), str(found["digest"])


@dataclass(frozen=True, slots=True)
class _Seen:
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


def _look(source: str) -> _Seen:
    above, name = os.path.split(source)
    with HeldDirectory.at(above) as around:
        status = around.look(name) if name else around.status
        if status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        if not stat.S_ISDIR(status.st_mode):
            unreadable = source if stat.S_ISREG(status.st_mode) and not around.readable(name, status) else None
            signature = (_entry("", status),) if status.st_ctime < time.time() - _RACY else None
            return _Seen(status.st_mode, identity_of(around.status), signature, unreadable)
        with around.enter(name or ".") as top:
            return _look_through(top)


def _look_through(top: HeldDirectory) -> _Seen:
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
            return _Seen(status.st_mode, identity, None, here.path_of(name))
        newest = max(newest, inner.st_ctime)
        if len(found) < _MAX_STAMPED_ENTRIES:
            found.append(_entry(path, inner))
        if stat.S_ISDIR(inner.st_mode) and path.count("/") >= MAX_WALK_DEPTH:
            is_whole = False
    if not is_whole or newest > time.time() - _RACY or len(found) >= _MAX_STAMPED_ENTRIES:
        return _Seen(status.st_mode, identity)
    return _Seen(status.st_mode, identity, tuple(sorted(found, key=lambda item: str(item[0]))))


def _entry(path: str, status: os.stat_result) -> tuple[object, ...]:
    return path, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
