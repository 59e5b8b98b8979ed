"""The kinds of frames between a waiting praxis-init and the program that hands it a call, and what all have in common.

`native/FRAMING.md` is the specification. Each frame is one byte of type, three zeros, a little-endian length of four
bytes, and so many bytes of payload.
"""

from __future__ import annotations

import struct
from enum import IntEnum

MAX_FRAME_PATH = 4095
"""Bytes of a path (PATH_MAX, its NUL included)."""
FRAME_HEADER = struct.Struct("<II")


class FrameType(IntEnum):
    """What a frame is; below 128 to the waiter, above from it."""

    CALL = 1
    ARGUMENT = 2
    VARIABLE = 3
    FILE = 5
    FILE_DATA = 6
    START = 7
    STDIN = 8
    STDIN_END = 9
    FILTER = 10
    TREE = 11
    TREE_DIRECTORY = 12
    TREE_FILE = 13
    TREE_LINK = 14
    FILE_HOLE = 15
    LAYOUT = 16
    MOUNT = 17
    GROUP = 18
    LIMIT = 19
    LAID = 20
    MEMBERSHIP = 21
    DESCRIPTORS = 22
    HELLO = 129
    STDOUT = 130
    STDERR = 131
    STDIN_CREDIT = 132
    STDIN_CLOSED = 133
    END = 134
    REFUSED = 135
    DETAIL = 136
    FOUND_TREE = 137
    FOUND_GONE = 138
    FOUND_DIRECTORY = 139
    FOUND_FILE = 140
    FOUND_DATA = 141
    FOUND_HOLE = 142
    FOUND_LINK = 143
    FOUND_END = 144


LARGEST_FOUND = {
    FrameType.FOUND_TREE: 4,
    FrameType.FOUND_GONE: MAX_FRAME_PATH,
    FrameType.FOUND_DIRECTORY: 4 + MAX_FRAME_PATH,
    FrameType.FOUND_FILE: 20 + MAX_FRAME_PATH,
    FrameType.FOUND_DATA: 64 * 1024,
    FrameType.FOUND_HOLE: 8,
    FrameType.FOUND_LINK: 2 * MAX_FRAME_PATH + 1,
    FrameType.FOUND_END: 8 + MAX_FRAME_PATH,
}
"""Bytes of payload that frames of what was found may have."""


class Found:
    """Part of what a waiter found of the trees of a call (see `trees`)."""

    __slots__ = ()


class FramingError(ValueError):
    """What was to be sent, or has come, breaks the rules of the framing; the message says which."""


class FramingSizeError(FramingError):
    """Words and variables are more than the framing, or Linux, takes for one command."""


def encode_frame(kind: FrameType, payload: bytes) -> bytes:
    """A frame; `payload` within the bounds of its kind."""
    return FRAME_HEADER.pack(kind, len(payload)) + payload
