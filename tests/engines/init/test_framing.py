"""The framing by itself: what is refused, and that pieces make no difference."""

import os
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.engines.init.framing import (
    FRAMING_VERSION,
    MAX_CALL,
    MAX_PAYLOAD,
    MAX_VARIABLES,
    Detail,
    Event,
    FrameDecoder,
    FrameType,
    FramingError,
    Hello,
    Output,
    Refused,
    StdinClosed,
    StdinCredit,
    WaitCall,
    WaitFile,
    encode_call,
    encode_file,
    encode_stdin,
)
from praxis_mcp.engines.init.trees import (
    FoundData,
    FoundDirectory,
    FoundEnd,
    FoundFile,
    FoundGone,
    FoundHole,
    FoundLink,
    FoundTree,
    Shortfall,
)
from praxis_mcp.support.praxis_init import Ended, EndKind


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack("<II", kind, len(payload)) + payload


def encoded(event: Event) -> bytes:
    """As a waiter writes it."""
    match event:
        case Hello(pid, window, machine):
            return frame(FrameType.HELLO, struct.pack("<III", FRAMING_VERSION, pid, window) + machine.encode())
        case Output(stream, data):
            return frame(FrameType.STDOUT if stream == "stdout" else FrameType.STDERR, data)
        case StdinCredit(size):
            return frame(FrameType.STDIN_CREDIT, struct.pack("<I", size))
        case StdinClosed():
            return frame(FrameType.STDIN_CLOSED)
        case Ended(kind, number, step):
            packed = struct.pack("<II", list(EndKind).index(kind), number or 0)
            return frame(FrameType.END, packed + (step or "").encode())
        case Refused(reason):
            return frame(FrameType.REFUSED, reason.encode())
        case Detail(text):
            return frame(FrameType.DETAIL, text.encode())
        case FoundTree(number):
            return frame(FrameType.FOUND_TREE, struct.pack("<I", number))
        case FoundGone(path):
            return frame(FrameType.FOUND_GONE, os.fsencode(path))
        case FoundDirectory(path, mode):
            return frame(FrameType.FOUND_DIRECTORY, struct.pack("<I", mode) + os.fsencode(path))
        case FoundFile(path, mode, size, modified):
            return frame(FrameType.FOUND_FILE, struct.pack("<IQQ", mode, size, modified) + os.fsencode(path))
        case FoundData(data):
            return frame(FrameType.FOUND_DATA, data)
        case FoundHole(size):
            return frame(FrameType.FOUND_HOLE, struct.pack("<Q", size))
        case FoundLink(path, target):
            return frame(FrameType.FOUND_LINK, os.fsencode(path) + b"\0" + os.fsencode(target))
        case FoundEnd(shortfall, number, path):
            return frame(FrameType.FOUND_END, struct.pack("<II", shortfall, number) + os.fsencode(path))
        case _:
            raise AssertionError(event)


u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
paths = st.sampled_from(["a", "a/b", "name with \n a line", os.fsdecode(b"a/\xff"), "x" * 255, "..."])
ends = st.one_of(
    st.builds(Ended, st.sampled_from([EndKind.EXIT, EndKind.SIGNAL, EndKind.EXEC_FAILED]), st.integers(0, 255)),
    st.just(Ended(EndKind.TIMEOUT)),
    st.builds(Ended, st.just(EndKind.SETUP_FAILED), st.integers(0, 200), st.just("fork")),
)
events = st.one_of(
    st.builds(Hello, u32, u32, st.sampled_from(["x86_64", "aarch64"])),
    st.builds(Output, st.sampled_from(["stdout", "stderr"]), st.binary(max_size=300)),
    st.builds(StdinCredit, u32),
    st.just(StdinClosed()),
    ends,
    st.builds(Refused, st.text("abc ", max_size=40)),
    st.builds(Detail, st.text(max_size=40)),
    st.builds(FoundTree, u32),
    st.builds(FoundGone, paths),
    st.builds(FoundDirectory, paths, st.integers(0, 0o7777)),
    st.builds(FoundFile, paths, st.integers(0, 0o7777), u64, u64),
    st.builds(FoundData, st.binary(max_size=300)),
    st.builds(FoundHole, u64),
    st.builds(FoundLink, paths, st.sampled_from(["x", "../..", "/etc", os.fsdecode(b"\xff")])),
    st.builds(FoundEnd, st.sampled_from(Shortfall), u32, paths),
)


def merged(found: list[Event]) -> list[Event]:
    """Output put together again: where it was cut means nothing."""
    result: list[Event] = []
    for event in found:
        last = result[-1] if result else None
        if isinstance(event, Output) and isinstance(last, Output) and last.stream == event.stream:
            result[-1] = Output(event.stream, last.data + event.data)
        elif not isinstance(event, Output) or event.data:
            result.append(event)
    return result


@given(st.lists(events, max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_events_arrive_whatever_the_pieces_they_come_in(sent: list[Event], sizes: list[int]) -> None:
    data = b"".join(map(encoded, sent))
    decoder = FrameDecoder()
    found: list[Event] = []
    position = number = 0
    while position < len(data):
        size = sizes[number % len(sizes)]
        found += decoder.feed(data[position : position + size])
        position, number = position + size, number + 1
    assert merged(found) == merged(sent)


@given(st.binary(max_size=400))
def test_any_bytes_at_all_are_events_or_a_framing_error(data: bytes) -> None:
    with suppress(FramingError):
        FrameDecoder().feed(data)


def test_of_a_stream_that_ends_within_a_frame_the_output_so_far_is_handed_on_and_nothing_else() -> None:
    assert FrameDecoder().feed(encoded(StdinCredit(5))[:-1]) == []
    assert FrameDecoder().feed(encoded(Output("stdout", b"abc"))[:-1]) == [Output("stdout", b"ab")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(77), "type 77"),
        (frame(FrameType.ARGUMENT), "type 2"),
        (frame(FrameType.HELLO | 256, b""), "type 385"),
        (struct.pack("<II", FrameType.STDOUT, MAX_PAYLOAD + 1), "STDOUT of 131073 bytes"),
        (struct.pack("<II", FrameType.END, 2**32 - 1), "END of 4294967295 bytes"),
        (frame(FrameType.END, b"short"), "END that cannot be read"),
        (frame(FrameType.END, struct.pack("<II", 5, 0)), "END that cannot be read"),
        (frame(FrameType.STDIN_CREDIT, b"1"), "STDIN_CREDIT that cannot be read"),
        (frame(FrameType.REFUSED, b"\xff"), "REFUSED that cannot be read"),
        (frame(FrameType.HELLO, struct.pack("<III", 2, 1, 1)), "version 2"),
        *(
            (frame(FrameType.FOUND_GONE, path), "a path")
            for path in (
                b"",
                b"/x",
                b"../x",
                b"a/..",
                b"a//b",
                b"a/",
                b".",
                b"x\0",
                b"x" * 256,
            )
        ),
        (frame(FrameType.FOUND_LINK, b"../x\0y"), "a path"),
        (frame(FrameType.FOUND_LINK, b"x"), "without a target"),
        (frame(FrameType.FOUND_FILE, struct.pack("<IQQ", 0, 0, 0) + b"/x"), "a path"),
        (frame(FrameType.FOUND_END, struct.pack("<II", 6, 0)), "FOUND_END that cannot be read"),
    ],
)
def test_what_no_waiter_sends_is_an_error_that_says_so(data: bytes, reason: str) -> None:
    with pytest.raises(FramingError, match=reason):
        FrameDecoder().feed(data)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"argv": []}, "needs a command"),
        ({"argv": [b"a\0b"]}, "a word of the command holds a NUL"),
        ({"argv": [b"x" * MAX_PAYLOAD]}, "a word of the command is longer"),
        ({"argv": [b"x" * 100_000] * (MAX_CALL // 100_000 + 1)}, f"more than {MAX_CALL} bytes"),
        ({"env": {b"A": b"\0"}}, "a variable holds a NUL"),
        ({"env": {b"": b""}}, "name is empty"),
        ({"env": {b"A=B": b""}}, "holds ="),
        ({"env": {b"A": b"x" * (MAX_PAYLOAD - 2)}}, "a variable is longer"),
        ({"env": {b"%d" % number: b"" for number in range(MAX_VARIABLES + 1)}}, "at most 4096 variables"),
        ({"timeout": 0}, "more than 0 seconds"),
        ({"timeout": float("nan")}, "timeout is not a number"),
        ({"kill_after": -1}, "kill_after is not a number"),
    ],
)
def test_a_call_that_cannot_be_carried_is_refused_before_it_is_sent(fields: dict[str, object], reason: str) -> None:
    call = WaitCall(**{"argv": [b"true"], **fields})  # pyright: ignore[reportArgumentType]
    with pytest.raises(FramingError, match=reason):
        encode_call(call)


@pytest.mark.parametrize("file", [WaitFile(b"", b""), WaitFile(b"a\0", b""), WaitFile(b"x" * 4096, b""),
                                  WaitFile(b"a", b"", 0o10000)])  # fmt: skip
def test_a_file_that_cannot_be_made_is_refused_before_it_is_sent(file: WaitFile) -> None:
    with pytest.raises(FramingError):
        list(encode_file(file))


def test_too_much_input_for_one_frame_is_refused() -> None:
    with pytest.raises(FramingError):
        encode_stdin(b"x" * (MAX_PAYLOAD + 1))
