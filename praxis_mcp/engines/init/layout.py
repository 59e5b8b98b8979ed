"""The layout of a sandbox as praxis-init takes it: one message; no I/O here.

`native/FRAMING.md` is the specification, native/layout.c the other side.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag
from functools import lru_cache

from praxis_mcp.engines.init.framing import (
    FrameType,
    FramingError,
    WaitCall,
    encode_call,
    encode_frame,
    encode_start,
    nanoseconds,
)

LAYOUT_VERSION = 1
MAX_LAYOUT_MOUNTS = 4096
MAX_LAYOUT_GROUPS = 8
MAX_LAYOUT_LIMITS = 16
MAX_LAYOUT_MEMBERSHIPS = 64
MAX_LAYOUT_TEXT = 8 * 1024 * 1024
"""Bytes of all paths of a layout, each with a NUL."""
MAX_LAYOUT_PATH = 4095
MAX_LAYOUT_NAME = 255
MAX_LAYOUT_HOST_NAME = 64

_LAYOUT = struct.Struct("<IIIIQ")
_MOUNT = struct.Struct("<IIIIQQ")
_GROUP = struct.Struct("<II")
_LIMIT = struct.Struct("<IQQ")
_MEMBERSHIP = struct.Struct("<I")
_NO_DESCRIPTOR = 0xFFFFFFFF
_UNLIMITED = 0xFFFFFFFFFFFFFFFF
_HOST_NETWORK, _WAITS, _HOST_USERS, _STAYS = 1, 2, 4, 8


class MountKind(IntEnum):
    """What is mounted; see FRAMING.md."""

    ROOT_DIRECTORY = 1
    ROOT_OVERLAY = 2
    ROOT_MEMORY = 3
    BIND = 4
    MEMORY = 5
    PROC = 6
    DEVICES = 7
    LINK = 8
    DIRECTORY = 9
    CONTENT = 10
    READ_ONLY = 11


class MountFlag(IntFlag):
    """How it is mounted."""

    IS_WRITABLE = 1
    MAKES_PLACE = 2
    LOCKS_PROC = 4
    HAS_TERMINALS = 8


@dataclass(frozen=True, slots=True)
class LaidMount:
    """One step of laying a sandbox out; what a kind has no use for stays as it is here.

    Attributes:
        kind: what it is.
        path: where, in the sandbox: absolute, no ``..``, no links.
        descriptor: what is mounted, or read; None: nothing.
        flags: see `MountFlag`.
        mode: permission bits.
        size: bytes, of what is kept in memory.
        files: how many it may hold.
        target: of a link.
    """

    kind: MountKind
    path: bytes
    descriptor: int | None = None
    flags: int = 0
    mode: int = 0
    size: int = 0
    files: int = 0
    target: bytes | None = None


@dataclass(frozen=True, slots=True)
class SandboxLayout:
    """A sandbox.

    Attributes:
        mounts: in the order in which they are made; the first is the root.
        directory: where the command begins.
        host_name: the name that the sandbox has for the machine.
        uid, gid: whom the command runs as, inside.
        host_network: whether it has the host's network; else it has one with nothing but a loopback.
        groups: control groups: version, and the descriptor of the file ``tasks`` (1) or of the directory (2).
        limits: resource (`resource.RLIMIT_…`), soft and hard limit; None: none.
        memberships: supplementary groups of the command, where users and groups are the host's; None: it has one user
            and one group of its own. Only root can make such a sandbox, and only for root.
    """

    mounts: Sequence[LaidMount] = field(repr=False)
    directory: bytes = b"/"
    host_name: bytes = b"sandbox"
    uid: int = 0
    gid: int = 0
    host_network: bool = False
    groups: Sequence[tuple[int, int]] = ()
    limits: Sequence[tuple[int, int | None, int | None]] = ()
    memberships: Sequence[int] | None = None


def encode_sandbox(layout: SandboxLayout, call: WaitCall, *, stays: bool = False) -> bytes:
    """The whole message for one command in a sandbox.

    Args:
        layout: the sandbox.
        call: the command.
        stays: whether it is there, with nothing of the command, for a moment behind its reply.

    Raises:
        FramingError: a field is malformed or out of its bounds; says which.
    """
    if call.files:
        raise FramingError("a sandbox's call has no files of its own: lay them out")
    if not call.no_new_privileges:
        call = replace(call, no_new_privileges=True)
    return _encode_layout(layout, _STAYS if stays else 0) + encode_call(call) + encode_start()


def encode_waiting_sandbox(layout: SandboxLayout, patience: float | None, seccomp: bytes | None = None) -> bytes:
    """The whole message for a sandbox that waits for one call.

    Args:
        layout: the sandbox.
        patience: seconds after which it leaves; None: it stays.
        seccomp: a filter for it and its call, as in `WaitCall`; None: the call brings its own.

    Raises:
        FramingError: a field is malformed or out of its bounds; says which.
    """
    return _encode_layout(layout, _WAITS, nanoseconds("patience", patience), seccomp)


def _encode_layout(layout: SandboxLayout, flags: int, patience: int = 0, seccomp: bytes | None = None) -> bytes:
    if not 0 < len(layout.host_name) <= MAX_LAYOUT_HOST_NAME or b"\0" in layout.host_name:
        raise FramingError(f"a host name has 1 to {MAX_LAYOUT_HOST_NAME} bytes and no NUL")
    if not (0 <= layout.uid < 1 << 31 and 0 <= layout.gid < 1 << 31):
        raise FramingError("a user or group is not a number from 0 to 2147483647")
    if (
        len(layout.mounts) > MAX_LAYOUT_MOUNTS
        or len(layout.groups) > MAX_LAYOUT_GROUPS
        or len(layout.limits) > MAX_LAYOUT_LIMITS
    ):
        raise FramingError(
            f"a sandbox has at most {MAX_LAYOUT_MOUNTS} mounts, {MAX_LAYOUT_GROUPS} control groups and "
            f"{MAX_LAYOUT_LIMITS} limits"
        )
    if layout.memberships is not None:
        if (layout.uid, layout.gid) != (0, 0):
            raise FramingError("a sandbox with the host's users is root's")
        are_numbers = all(0 <= each < 1 << 31 for each in layout.memberships)
        if len(layout.memberships) > MAX_LAYOUT_MEMBERSHIPS or not are_numbers:
            raise FramingError(f"a command has at most {MAX_LAYOUT_MEMBERSHIPS} groups, from 0 to 2147483647")
        flags |= _HOST_USERS
    flags |= _HOST_NETWORK if layout.host_network else 0
    head = _LAYOUT.pack(LAYOUT_VERSION, flags, layout.uid, layout.gid, patience)
    parts = [encode_frame(FrameType.LAYOUT, head + layout.host_name + b"\0" + _path(layout.directory))]
    parts += _mounts(layout.mounts)
    parts += [encode_frame(FrameType.GROUP, _GROUP.pack(*group)) for group in layout.groups]
    for resource, soft, hard in layout.limits:
        values = (_UNLIMITED if value is None else value for value in (soft, hard))
        parts.append(encode_frame(FrameType.LIMIT, _LIMIT.pack(resource, *values)))
    parts += [encode_frame(FrameType.MEMBERSHIP, _MEMBERSHIP.pack(each)) for each in layout.memberships or ()]
    if seccomp is not None:
        parts.append(encode_frame(FrameType.FILTER, seccomp))
    parts.append(encode_frame(FrameType.LAID, b""))
    return b"".join(parts)


def _mounts(mounts: Iterable[LaidMount]) -> Iterable[bytes]:
    text = 0
    for mount in mounts:
        descriptor = _NO_DESCRIPTOR if mount.descriptor is None else mount.descriptor
        try:
            head = _MOUNT.pack(mount.kind, mount.flags, mount.mode, descriptor, mount.size, mount.files)
        except struct.error as exc:
            raise FramingError(f"a mount with a number that has no place in a frame: {mount}") from exc
        tail = _path(mount.path)
        if mount.target is not None:
            if not 0 < len(mount.target) <= MAX_LAYOUT_PATH or b"\0" in mount.target:
                raise FramingError(f"a link's target is empty, longer than {MAX_LAYOUT_PATH} bytes or holds a NUL byte")
            tail += b"\0" + mount.target
        text += len(tail) + 2
        if text > MAX_LAYOUT_TEXT:
            raise FramingError(f"the paths of a sandbox are more than {MAX_LAYOUT_TEXT} bytes together")
        yield encode_frame(FrameType.MOUNT, head + tail)


@lru_cache(maxsize=256)  # most are those of every call: /proc, /dev, /tmp
def _path(path: bytes) -> bytes:
    """The path, if it is one.

    Raises:
        FramingError: it is not absolute, or not plain.
    """
    names = path.split(b"/")[1:] if path != b"/" else []
    is_plain = all(name not in (b"", b".", b"..") and len(name) <= MAX_LAYOUT_NAME for name in names)
    if not path.startswith(b"/") or len(path) > MAX_LAYOUT_PATH or b"\0" in path or not is_plain:
        raise FramingError(f"not an absolute and plain path of at most {MAX_LAYOUT_PATH} bytes: {path[:200]!r}")
    return path
