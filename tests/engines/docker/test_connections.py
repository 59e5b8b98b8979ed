"""The framing of attached streams, and lookups on a daemon that closes its connections, as daemons may."""

import itertools
import struct
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.abc import ByteStream
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.engines.docker.connections import Address, AttachedStream, ConnectionLost, ImageLookup
from praxis_mcp.errors import ExecutionError


class Pieces(ByteStream):
    """A connection that hands out given pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        for piece in self._pieces:
            return piece
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        raise AssertionError("nothing is to be sent")

    async def send_eof(self) -> None:
        raise AssertionError("nothing is to be sent")

    async def aclose(self) -> None:
        return None


def read_all(pieces: list[bytes], first: bytes = b"") -> dict[str, bytes]:
    """What a stream that arrives in these pieces says, by name."""
    result = {"stdout": b"", "stderr": b""}

    async def read() -> None:
        async for name, data in AttachedStream(Pieces(pieces), first).pieces():
            result[name] += data

    anyio.run(read)
    return result


FRAMES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=12)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 4000), max_size=20))
def test_frames_are_read_however_the_network_cuts_them(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    whole = b"".join(struct.pack(">BxxxL", number, len(data)) + data for number, data in frames)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[start:end] for start, end in itertools.pairwise(places)]
    expected = {name: b"".join(data for n, data in frames if n == number) for name, number in NUMBERS.items()}
    assert read_all(pieces) == expected
    assert read_all(pieces[1:], first=b"".join(pieces[:1])) == expected


NUMBERS = {"stdout": 1, "stderr": 2}


def test_a_stream_that_ends_within_a_frame_was_cut() -> None:
    with pytest.raises(ConnectionLost):
        read_all([struct.pack(">BxxxL", 1, 10) + b"half"])


def test_output_that_is_not_framed_is_refused() -> None:
    with pytest.raises(ExecutionError, match="not framed"):
        read_all([b"plain text, as a terminal would give"])


@pytest.mark.anyio
@pytest.mark.parametrize("header", ["Connection: close", "Server: closes without a word"])
async def test_each_image_is_looked_up_though_the_daemon_closes_after_it(tmp_path: Path, header: str) -> None:
    path = tmp_path / "docker.sock"
    count = 0

    async def serve(stream: anyio.abc.SocketStream) -> None:
        nonlocal count
        async with stream:
            await stream.receive()
            count += 1
            await stream.send(f'HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 11\r\n\r\n{{"Id":"{count}"}} '.encode())

    with anyio.fail_after(60):
        async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            lookup = ImageLookup(Address(str(path)), "/v1.41")
            found = [await lookup.image("tool") for _ in range(3)]
            assert found == [{"Id": "1"}, {"Id": "2"}, {"Id": "3"}]
            await lookup.aclose()
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_lookups_that_wait_share_an_answer_that_was_asked_for_after_they_came(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    asked: list[bytes] = []
    first_came, go_on = anyio.Event(), anyio.Event()

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            while True:
                try:
                    asked.append((await stream.receive()).split(b" ")[1])
                except anyio.EndOfStream:
                    return
                first_came.set()
                await go_on.wait()
                body = f'{{"Id":"{len(asked)}"}}'
                await stream.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    found: dict[str, object] = {}
    with anyio.fail_after(60):
        async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as server:
            server.start_soon(listener.serve, serve)
            lookup = ImageLookup(Address(str(path)), "/v1.41")

            async def look(who: str, reference: str) -> None:
                found[who] = await lookup.image(reference)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(look, "the first", "tool")
                await first_came.wait()
                for number in range(3):
                    tasks.start_soon(look, f"late {number}", "tool")
                tasks.start_soon(look, "of another image", "other")
                await anyio.wait_all_tasks_blocked()
                go_on.set()
            await lookup.aclose()
            server.cancel_scope.cancel()
    assert found == {
        "the first": {"Id": "1"},
        **{f"late {number}": {"Id": "2"} for number in range(3)},
        "of another image": {"Id": "3"},
    }
    assert [target.rpartition(b"/images/")[2] for target in asked] == [b"tool/json", b"tool/json", b"other/json"]
