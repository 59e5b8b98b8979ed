"""A call on a waiting praxis-init, through the part that the engines share."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.abc
import pytest

from praxis_mcp.engines.init import waiter
from praxis_mcp.engines.init.framing import FrameType, FramingError, WaitCall, WaitFile
from praxis_mcp.engines.init.waiter import Channel, Waiter, WaiterLost, WaiterSilent
from praxis_mcp.engines.output import Captured, StreamCollector, Streams
from praxis_mcp.support.praxis_init import Ended, EndKind, praxis_init_path
from praxis_mcp.support.unix_stream import UnixStream
from praxis_mcp.testing.bench import CALL_LIMIT, measured_growth, processes

pytestmark = [pytest.mark.anyio, pytest.mark.native]
HELLO = struct.pack("<IIIII", FrameType.HELLO, 12, 1, 1, 262_144)


@asynccontextmanager
async def channel(path: Path) -> AsyncIterator[UnixStream]:
    """A channel to a real waiter; the waiter is gone when this is left."""
    binary = praxis_init_path()
    assert binary is not None
    async with await anyio.create_unix_listener(path) as listener:
        words = [str(binary), "wait", "--socket", str(path)]
        async with await anyio.open_process(words, stdin=None, stdout=None, stderr=None) as process:
            with anyio.fail_after(CALL_LIMIT):
                accepted = await listener.accept()
                raw = accepted.extra(anyio.abc.SocketAttribute.raw_socket)
                stream = UnixStream(_duplicate(raw.fileno()))
                yield stream
                await accepted.aclose()
                await stream.aclose()
                await process.wait()


def _duplicate(descriptor: int) -> socket.socket:
    duplicate = socket.socket(fileno=os.dup(descriptor))
    duplicate.setblocking(False)
    return duplicate


@dataclass
class Heard:
    end: Ended
    stdout: Captured
    stderr: Captured


async def run(stream: Channel, call: WaitCall, stdin: bytes | None = None) -> Heard:
    async with Streams(StreamCollector("stdout", keep=1 << 20), StreamCollector("stderr", keep=1 << 20)) as streams:
        end = await Waiter(stream).run(call, stdin, *streams)
    return Heard(end, *streams.captured)


def words(*command: str, **fields: object) -> WaitCall:
    return WaitCall([word.encode() for word in command], **fields)  # pyright: ignore[reportArgumentType]


async def test_a_call_comes_back_with_its_streams_and_its_end(tmp_path: Path) -> None:
    file = WaitFile(os.fsencode(tmp_path / "file"), b"from a file\n")
    async with channel(tmp_path / "s") as stream:
        call = words("/bin/sh", "-c", f"cat {tmp_path}/file -; echo $X >&2; exit 3", env={b"X": b"x"}, files=[file])
        heard = await run(stream, call, b"from stdin\n")
    assert (heard.end, heard.stdout.data, heard.stderr.data) == (
        Ended(EndKind.EXIT, 3),
        b"from a file\nfrom stdin\n",
        b"x\n",
    )


async def test_much_goes_both_ways_in_bounded_memory(tmp_path: Path) -> None:
    data = bytes(range(256)) * (32 << 12)
    async with channel(tmp_path / "s") as stream:
        with measured_growth() as growth:
            heard = await run(stream, words("cat"), data)
    assert (heard.stdout.total, heard.end) == (len(data), Ended(EndKind.EXIT, 0))
    assert growth() < 16 << 20


async def test_input_that_a_command_does_not_read_is_not_a_hindrance(tmp_path: Path) -> None:
    async with channel(tmp_path / "s") as stream:
        heard = await run(stream, words("head", "-c", "10"), b"x" * 10_000_000)
    assert (heard.stdout.data, heard.end) == (b"x" * 10, Ended(EndKind.EXIT, 0))


async def test_a_cancelled_call_closes_the_channel_and_leaves_nothing_running(tmp_path: Path) -> None:
    marker = uuid4().hex
    async with channel(tmp_path / "s") as stream:
        heard = anyio.Event()
        collector = StreamCollector("stdout", keep=100, listener=lambda *_: heard.set())
        call = words("/bin/sh", "-c", "echo ready; sleep 1000; :", marker)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Waiter(stream).run, call, None, collector, StreamCollector("stderr", keep=100))
            await heard.wait()
            assert processes(marker) != []
            tasks.cancel_scope.cancel()
    assert processes(marker) == []


async def test_a_waiter_that_refuses_says_why(tmp_path: Path) -> None:
    async with channel(tmp_path / "s") as stream:
        waiter = Waiter(stream)
        await waiter.greet()
        await stream.send(b"nonsense, nonsense")
        with pytest.raises(WaiterLost, match="refused the call: a frame of a type") as lost:
            await waiter.run(words("true"), None, *_ignored())
    assert str(lost.value)


async def test_a_call_that_cannot_be_carried_is_not_sent(tmp_path: Path) -> None:
    async with channel(tmp_path / "s") as stream:
        with pytest.raises(FramingError, match="longer"):
            await run(stream, words("x" * 200_000))


def _ignored() -> tuple[StreamCollector, StreamCollector]:
    return StreamCollector("stdout", keep=100), StreamCollector("stderr", keep=100)


async def test_a_waiter_takes_a_call_while_its_channel_is_open_and_silent_and_it_is_not_too_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Waiter(Scripted(ends=False)).is_waiting()
    assert not Waiter(Scripted()).is_waiting()
    assert not Waiter(Scripted(HELLO, ends=False)).is_waiting()
    monkeypatch.setattr(waiter, "WAITER_MAX_AGE", 0.0)
    assert not Waiter(Scripted(ends=False)).is_waiting()


class Scripted:
    """The far end of a channel that says what a test wants, and no more."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self.sent = bytearray()
        self.closed = False
        self._pieces = list(pieces)
        self._ends = ends

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if self._pieces:
            return self._pieces.pop(0)
        if not self._ends:
            await anyio.sleep_forever()
        raise anyio.EndOfStream

    def is_silent(self) -> bool:
        return not self._pieces and not self._ends

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent += item

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([], "did not say hello"),
        ([b"garbage! garbage!"], "type"),
        ([HELLO], "ended before"),
        ([HELLO, HELLO], "hello again"),
        ([HELLO, struct.pack("<III", FrameType.FOUND_TREE, 4, 0)], "trees of a call without"),
        ([HELLO, struct.pack("<II", FrameType.FOUND_GONE, 4) + b"/etc"], "does not lead below"),
        ([HELLO, struct.pack("<II", FrameType.STDOUT, 10) + b"part"], "ended before"),
    ],
)
async def test_a_far_end_that_breaks_off_is_reported_and_closed(pieces: list[bytes], reason: str) -> None:
    far = Scripted(*pieces)
    with pytest.raises(WaiterLost, match=reason) as lost, anyio.fail_after(CALL_LIMIT):
        await Waiter(far).run(words("true"), None, *_ignored())
    assert far.closed
    assert lost.value.may_have_run or not far.sent


async def test_a_far_end_that_says_nothing_past_the_deadline_is_not_the_tools_fault() -> None:
    far = Scripted(HELLO, ends=False)
    with pytest.raises(WaiterSilent) as silent, anyio.fail_after(CALL_LIMIT):
        await Waiter(far).run(words("true", timeout=0.1), None, *_ignored(), grace=0.2)
    assert (silent.value.seconds, far.closed) == (pytest.approx(0.3), True)


def test_the_start_of_a_server_does_not_wait_for_what_is_found_of_trees() -> None:
    """It imports the waiter for its errors; the classes of what is found take milliseconds."""
    script = "import sys, praxis_mcp.engines.init.waiter; print(any(name.endswith('.trees') for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=CALL_LIMIT, check=True
    )
    assert done.stdout == "False\n"
