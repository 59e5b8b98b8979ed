"""The frames between a waiting praxis-init and the program that hands it a call; no I/O here.

`native/FRAMING.md` is the specification, native/frames.c and call.c the other side.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from praxis_mcp.engines.init.frame_types import (
    FRAME_HEADER,
    LARGEST_FOUND,
    MAX_FRAME_PATH,
    Found,
    FrameType,
    FramingError,
    FramingSizeError,
    encode_frame,
)
from praxis_mcp.engines.output import StreamName
from praxis_mcp.support.praxis_init import Ended, EndKind

FRAMING_VERSION = 1
MAX_PAYLOAD = 128 * 1024
"""Bytes of one frame's payload: Linux's own bound on one word or variable (MAX_ARG_STRLEN, its NUL included)."""
MAX_CALL = 8 * 1024 * 1024
"""Bytes of a call's words and variables with their NUL and pointer, more than Linux takes for one command."""
MAX_VARIABLES = 4096
"""Variables of a call; the other side bounds them together with those that it has already."""
FRAME_PIECE = 64 * 1024
"""Bytes of content in one frame of ours."""

_CALL = struct.Struct("<IQQ")
_U32 = struct.Struct("<I")
_HELLO = struct.Struct("<III")
_END = struct.Struct("<II")
_POINTER = 8
_NO_NETWORK, _NO_NEW_PRIVILEGES = 2, 4
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class WaitFile:
    """A file that exists before the command starts: path as the command sees it, content, permission bits."""

    path: bytes
    content: bytes = field(repr=False)
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class WaitCall:
    """A call for a waiter. Text is bytes: any but NUL.

    Attributes:
        argv: the words of the command.
        env: variables, added to the waiter's own.
        files: see `WaitFile`.
        timeout: seconds from the start until the whole tree is ended; None: no deadline.
        kill_after: seconds between SIGTERM and SIGKILL at the deadline; 0: SIGKILL at once.
        no_network: leave no sockets but AF_UNIX.
        no_new_privileges: set-user-id programs and file capabilities give nothing.
        seccomp: a filter of system calls for it (see `seccomp`), which implies `no_new_privileges`; None: none.
    """

    argv: Sequence[bytes] = field(repr=False)
    env: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    files: Sequence[WaitFile] = ()
    timeout: float | None = None
    kill_after: float = 0.0
    no_network: bool = False
    no_new_privileges: bool = True
    seccomp: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Hello:
    """The waiter is ready: its process id (in its own namespace), how much standard input it holds, its machine."""

    pid: int
    stdin_window: int
    machine: str


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what the command wrote."""

    stream: StreamName
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StdinCredit:
    """The command has taken so many bytes of standard input; as many more may be sent."""

    size: int


@dataclass(frozen=True, slots=True)
class StdinClosed:
    """The command reads no more standard input."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The waiter did not understand what it got, and says what was wrong."""

    reason: str


@dataclass(frozen=True, slots=True)
class Detail:
    """Why a sandbox, or a tree of a call, could not be made, and what would help; `Ended` follows."""

    text: str


Event = Hello | Output | StdinCredit | StdinClosed | Ended | Refused | Detail | Found
"""`Ended`: the command and all that it started are gone; all output has been sent."""

_END_KINDS = (EndKind.EXIT, EndKind.SIGNAL, EndKind.TIMEOUT, EndKind.EXEC_FAILED, EndKind.SETUP_FAILED)
_LARGEST = {
    FrameType.HELLO: 64,
    FrameType.STDOUT: MAX_PAYLOAD,
    FrameType.STDERR: MAX_PAYLOAD,
    FrameType.STDIN_CREDIT: 4,
    FrameType.STDIN_CLOSED: 0,
    FrameType.END: 64,
    FrameType.REFUSED: 512,
    FrameType.DETAIL: 8192,
    **LARGEST_FOUND,
}
"""Bytes of payload that each kind of frame from a waiter may have: a length is believed only within these."""


def encode_call(call: WaitCall) -> bytes:
    """The frames of a call up to, and not with, its files.

    Raises:
        FramingError: a field is malformed or larger than the framing, or Linux, allows; says which.
    """
    if not call.argv:
        raise FramingError("a call needs a command")
    if len(call.env) > MAX_VARIABLES:
        raise FramingSizeError(f"a call has at most {MAX_VARIABLES} variables")
    flags = call.no_network * _NO_NETWORK | call.no_new_privileges * _NO_NEW_PRIVILEGES
    timeout = nanoseconds("timeout", call.timeout)
    if call.timeout is not None and timeout == 0:
        raise FramingError("a timeout must be more than 0 seconds; None means no limit")
    parts = [encode_frame(FrameType.CALL, _CALL.pack(flags, timeout, nanoseconds("kill_after", call.kill_after)))]
    parts += [encode_frame(FrameType.ARGUMENT, _text("a word of the command", word)) for word in call.argv]
    for name, value in call.env.items():
        if not name or b"=" in name:
            raise FramingError("a variable's name is empty or holds =")
        parts.append(encode_frame(FrameType.VARIABLE, _text("a variable", b"%b=%b" % (name, value))))
    if call.seccomp is not None:
        parts.append(encode_frame(FrameType.FILTER, call.seccomp))
    if sum(len(part) + 1 + _POINTER for part in parts) > MAX_CALL:
        raise FramingSizeError(f"a call's words and variables are more than {MAX_CALL} bytes together")
    return b"".join(parts)


def encode_file(file: WaitFile) -> Iterator[bytes]:
    """The frames of a file, in pieces; to be sent between `encode_call` and `encode_start`.

    Raises:
        FramingError: its path or mode is malformed.
    """
    if not file.path or len(file.path) > MAX_FRAME_PATH or b"\0" in file.path:
        raise FramingError(f"a file's path is empty, longer than {MAX_FRAME_PATH} bytes or holds a NUL byte")
    if not 0 <= file.mode <= 0o7777:
        raise FramingError(f"a file has no mode {file.mode:o}")
    yield encode_frame(FrameType.FILE, _U32.pack(file.mode) + file.path)
    for start in range(0, len(file.content), FRAME_PIECE):
        yield encode_frame(FrameType.FILE_DATA, file.content[start : start + FRAME_PIECE])


def encode_start() -> bytes:
    """The frame that starts the command."""
    return encode_frame(FrameType.START, b"")


def encode_stdin(data: bytes) -> bytes:
    """A frame of standard input: at most `MAX_PAYLOAD` bytes."""
    if len(data) > MAX_PAYLOAD:
        raise FramingError(f"a frame carries at most {MAX_PAYLOAD} bytes")
    return encode_frame(FrameType.STDIN, data)


def encode_stdin_end() -> bytes:
    """The frame that ends standard input."""
    return encode_frame(FrameType.STDIN_END, b"")


def _text(what: str, text: bytes) -> bytes:
    if b"\0" in text:
        raise FramingError(f"{what} holds a NUL byte")
    if len(text) >= MAX_PAYLOAD:
        raise FramingSizeError(f"{what} is longer than {MAX_PAYLOAD - 1} bytes")
    return text


def nanoseconds(name: str, seconds: float | None) -> int:
    """Seconds as the framing has them; None is 0.

    Args:
        name: of the value, for the error.
        seconds: the value.

    Raises:
        FramingError: it is not a number of seconds, or more than 31 years.
    """
    if seconds is None:
        return 0
    if not math.isfinite(seconds) or not 0 <= seconds <= _NANOSECONDS:
        raise FramingError(f"{name} is not a number of seconds up to 31 years: {seconds!r}")
    return round(seconds * _NANOSECONDS)


class FrameDecoder:
    """What a waiter sends, in whatever pieces it comes → events.

    Output is handed on as it arrives, before its frame is complete; nothing but the other, short frames is held.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._output: StreamName | None = None
        self._due = 0

    def feed(self, data: bytes) -> list[Event]:
        """Take in the next bytes; gives the events in them.

        Raises:
            FramingError: they are not what a waiter sends. What follows has no meaning any more.
        """
        self._buffer += data
        events: list[Event] = []
        position = 0
        while True:
            if self._due and self._output is not None:
                piece = bytes(self._buffer[position : position + self._due])
                if not piece:
                    break
                position += len(piece)
                self._due -= len(piece)
                events.append(Output(self._output, piece))
                continue
            if len(self._buffer) - position < FRAME_HEADER.size:
                break
            kind, length = self._header(position)
            if kind in (FrameType.STDOUT, FrameType.STDERR):
                position += FRAME_HEADER.size
                self._output = "stdout" if kind is FrameType.STDOUT else "stderr"
                self._due = length
                continue
            end = position + FRAME_HEADER.size + length
            if len(self._buffer) < end:
                break
            events.append(_event(kind, bytes(self._buffer[position + FRAME_HEADER.size : end])))
            position = end
        del self._buffer[:position]
        return events

    def _header(self, position: int) -> tuple[FrameType, int]:
        number, length = FRAME_HEADER.unpack_from(self._buffer, position)
        try:
            kind = FrameType(number)
            largest = _LARGEST[kind]
        except (ValueError, KeyError):
            raise FramingError(f"a frame of the type {number}, which no waiter sends") from None
        if length > largest:
            raise FramingError(f"a frame {kind.name} of {length} bytes; it has at most {largest}")
        return kind, length


def _event(kind: FrameType, payload: bytes) -> Event:
    try:
        match kind:
            case FrameType.HELLO:
                version, pid, window = _HELLO.unpack_from(payload)
                if version != FRAMING_VERSION:
                    raise FramingError(f"the waiter speaks version {version} of the framing, not {FRAMING_VERSION}")
                return Hello(pid, window, payload[_HELLO.size :].decode("ascii"))
            case FrameType.STDIN_CREDIT:
                return StdinCredit(_U32.unpack(payload)[0])
            case FrameType.STDIN_CLOSED:
                return StdinClosed()
            case FrameType.END:
                number, value = _END.unpack_from(payload)
                step = payload[_END.size :].decode("ascii")
                end_kind = _END_KINDS[number]
                return Ended(end_kind, None if end_kind is EndKind.TIMEOUT else value, step or None)
            case FrameType.DETAIL:
                return Detail(payload.decode(errors="replace"))
            case FrameType.REFUSED:
                return Refused(payload.decode("ascii"))
            case _:
                # Few calls have trees: no server's start waits for the classes of what is found of them.
                from praxis_mcp.engines.init.trees import parse_found

                return parse_found(kind, payload)
    except FramingError:
        raise
    except (struct.error, ValueError, IndexError) as exc:
        raise FramingError(f"a frame {kind.name} that cannot be read") from exc
