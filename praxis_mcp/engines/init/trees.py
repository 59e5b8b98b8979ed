"""Directories of a call in frames: their content to a waiter, and what it found of them afterwards; no I/O here.

`native/FRAMING.md` is the specification, native/trees.c and findings.c the other side.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from praxis_mcp.engines.init.frame_types import MAX_FRAME_PATH, Found, FrameType, FramingError, encode_frame

MAX_FRAME_NAME = 255
"""Bytes of one name in a path (NAME_MAX)."""
MAX_TREES = 64
"""Of one call."""

_TREE = struct.Struct("<IIQ")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TREE_FILE = struct.Struct("<IQ")
_FOUND_FILE = struct.Struct("<IQQ")
_FOUND_END = struct.Struct("<II")
_RETURNS, _ONE_FILE = 1, 2
_LAST_TIME = 2**64 - 1
"""Nanoseconds: in the year 2554."""
_PORTION = 512 * 1024
_FOUND_COST = 512
"""Bytes of a portion of what was found, and what a part without content counts."""


class Shortfall(IntEnum):
    """Why what was found of a tree is not all of it."""

    NONE = 0
    MORE_ENTRIES = 1
    """There are more than the tree may have."""
    MORE_BYTES = 2
    UNREADABLE = 3
    TOO_DEEP = 4
    """Or with a path that is too long."""
    BUSY = 5
    """Something that the command started cannot be ended."""


@dataclass(frozen=True, slots=True)
class FoundTree(Found):
    """What follows is of the tree of that number."""

    number: int


@dataclass(frozen=True, slots=True)
class FoundGone(Found):
    """Nothing is there any more. Of a directory, what was in it is gone as well, and named."""

    path: str


@dataclass(frozen=True, slots=True)
class FoundDirectory(Found):
    """A directory that is new, or has other permissions."""

    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class FoundFile(Found):
    """A file that is new, or changed; its content follows.

    Attributes:
        path: relative to the tree.
        mode: permission bits.
        size: bytes, holes among them.
        modified: nanoseconds since 1970.
    """

    path: str
    mode: int
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class FoundData(Found):
    """The next bytes of the file."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FoundHole(Found):
    """So many zeros come next in the file, which take no room."""

    size: int


@dataclass(frozen=True, slots=True)
class FoundLink(Found):
    """A symbolic link that is new, or changed."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class FoundEnd(Found):
    """Nothing more comes of this tree.

    Attributes:
        shortfall: why that is not all; then nothing of it is to be used.
        number: an errno of Linux, where one says more.
        path: at which that was met; it may be cut.
    """

    shortfall: Shortfall
    number: int = 0
    path: str = ""


class Tree(Protocol):
    """A directory of a call, as a waiter's other end sees it. Its methods may block, and are called in threads."""

    @property
    def returns(self) -> bool:
        """Whether what became of it comes back."""
        ...

    def frames(self) -> Generator[bytes]:
        """The frames that make it, in pieces of any size.

        Raises:
            ExecutionError: it cannot be sent.
        """
        ...

    def take(self, found: Sequence[Found]) -> None:
        """Take in what was found next of it.

        Raises:
            FramingError: that breaks the rules.
            ExecutionError: it cannot be kept.
        """
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class ReturningTrees:
    """Hands what is found to the trees of a call, in portions: each is a thread's work."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._trees = trees
        self._due = [number for number, tree in enumerate(trees) if tree.returns]
        self._found: list[Found] = []
        self._size = 0
        self._current: Tree | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the end of each tree that comes back has come."""
        return not self._due

    def add(self, found: Found) -> bool:
        """Take in the next part; whether a portion is to be delivered."""
        self._found.append(found)
        self._size += len(found.data) if isinstance(found, FoundData) else _FOUND_COST
        return self._size >= _PORTION or isinstance(found, FoundEnd)

    def deliver(self) -> None:
        """Give the trees what has come. Blocks.

        Raises:
            FramingError: that breaks the rules.
            ExecutionError: it cannot be kept.
        """
        found, self._found, self._size = self._found, [], 0
        begin = 0
        for place, part in enumerate(found):
            if isinstance(part, FoundTree):
                if self._current is not None or not self._due or part.number != self._due[0]:
                    raise FramingError(f"the tree {part.number} out of turn")
                self._current, begin = self._trees[self._due[0]], place
            elif self._current is None:
                raise FramingError("what was found of no tree")
            elif isinstance(part, FoundEnd):
                self._current.take(found[begin : place + 1])
                self._current, begin = None, place + 1
                del self._due[0]
        if self._current is not None:
            self._current.take(found[begin:])


@dataclass(frozen=True, slots=True)
class TreeBounds:
    """What a tree may have, on the way there and back.

    Attributes:
        entries: files, directories and links.
        size: bytes of all files together, holes among them.
    """

    entries: int = 50_000
    size: int = 2 * 1024**3


def encode_tree(place: str, bounds: TreeBounds, *, returns: bool, is_file: bool = False) -> bytes:
    """The frame with which a tree begins; its entries follow, directories before what is in them.

    Args:
        place: absolute path, as the command sees it.
        bounds: what it may have.
        returns: whether what became of it comes back.
        is_file: the path is that of a file, which is all that is in the tree.

    Raises:
        FramingError: the path is malformed.
    """
    flags = returns * _RETURNS | is_file * _ONE_FILE
    if not place.startswith("/"):
        raise FramingError(f"a tree's path is not absolute: {place!r}")
    payload = b"/" + _encoded(place[1:])
    return encode_frame(FrameType.TREE, _TREE.pack(flags, bounds.entries, bounds.size) + payload)


def encode_tree_directory(path: str, mode: int) -> bytes:
    """A directory, or other permissions for one that has come. They must let its user in until its content has come."""
    return encode_frame(FrameType.TREE_DIRECTORY, _U32.pack(mode) + _encoded(path))


def encode_tree_file(path: str, mode: int, modified: int) -> bytes:
    """A file, with its time in nanoseconds since 1970; its content follows. A time that does not fit becomes the
    nearest that does."""
    time = min(max(modified, 0), _LAST_TIME)
    return encode_frame(FrameType.TREE_FILE, _TREE_FILE.pack(mode, time) + _encoded(path))


def encode_tree_link(path: str, target: str) -> bytes:
    """A symbolic link."""
    return encode_frame(FrameType.TREE_LINK, _encoded(path) + b"\0" + os.fsencode(target))


def encode_data(data: bytes) -> bytes:
    """Content of the file that was named last."""
    return encode_frame(FrameType.FILE_DATA, data)


def encode_hole(size: int) -> bytes:
    """So many zeros in the file that was named last, which take no room."""
    return encode_frame(FrameType.FILE_HOLE, _U64.pack(size))


def _encoded(path: str) -> bytes:
    encoded = os.fsencode(path)
    _check(encoded)
    return encoded


def _check(path: bytes) -> None:
    """See that a path leads below a tree's directory, by names alone."""
    if b"\0" in path or len(path) > MAX_FRAME_PATH:
        raise FramingError(f"an entry of a tree has a path with a NUL byte, or of more than {MAX_FRAME_PATH} bytes")
    if any(name in (b"", b".", b"..") or len(name) > MAX_FRAME_NAME for name in path.split(b"/")):
        raise FramingError(f"an entry of a tree has a path that does not lead below it: {path[:200]!r}")


def _path(payload: bytes) -> str:
    _check(payload)
    return os.fsdecode(payload)


def parse_found(kind: FrameType, payload: bytes) -> Found:
    """What a frame of those from `FOUND_TREE` to `FOUND_END` says.

    Raises:
        FramingError, struct.error, ValueError: it cannot be read.
    """
    match kind:
        case FrameType.FOUND_TREE:
            return FoundTree(*_U32.unpack(payload))
        case FrameType.FOUND_GONE:
            return FoundGone(_path(payload))
        case FrameType.FOUND_DIRECTORY:
            return FoundDirectory(_path(payload[_U32.size :]), *_U32.unpack_from(payload))
        case FrameType.FOUND_FILE:
            return FoundFile(_path(payload[_FOUND_FILE.size :]), *_FOUND_FILE.unpack_from(payload))
        case FrameType.FOUND_DATA:
            return FoundData(payload)
        case FrameType.FOUND_HOLE:
            return FoundHole(*_U64.unpack(payload))
        case FrameType.FOUND_LINK:
            path, _, target = payload.partition(b"\0")
            if not target or b"\0" in target:
                raise FramingError("a link without a target")
            return FoundLink(_path(path), os.fsdecode(target))
        case _:
            shortfall, number = _FOUND_END.unpack_from(payload)
            return FoundEnd(Shortfall(shortfall), number, os.fsdecode(payload[_FOUND_END.size :]))
