"""HTTP/1.1 over one connection, against servers that say what no good one would."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from praxis_mcp.support.http1 import (
    MAX_HEAD,
    MAX_INTERIM_ANSWERS,
    ConnectionLost,
    HttpConnection,
    InvalidRequest,
    MalformedAnswer,
)
from praxis_mcp.support.unix_stream import UnixStream
from tests.kit.until import until

pytestmark = pytest.mark.anyio

LIMIT = 60.0
HOST = [("Host", "here")]
UPGRADE = [*HOST, ("Connection", "Upgrade"), ("Upgrade", "tcp")]
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Stream = anyio.abc.ByteStream
Serve = Callable[[Stream], Awaitable[None]]


async def request_of(stream: Stream) -> bytes:
    """The head of a request without a body."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += await stream.receive()
    return heard


def saying(*pieces: bytes) -> Serve:
    """A server that answers each request with these pieces, each of which arrives by itself, and then closes."""

    async def serve(stream: Stream) -> None:
        await request_of(stream)
        for piece in pieces:
            await stream.send(piece)
            await anyio.wait_all_tasks_blocked()  # until the client has read it

    return serve


def answering(*answers: bytes) -> Serve:
    """A server that gives one of these to each request, and then waits for the client to close."""

    async def serve(stream: Stream) -> None:
        for answer in answers:
            await request_of(stream)
            await stream.send(answer)
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()

    return serve


@asynccontextmanager
async def unix_pair() -> AsyncIterator[tuple[Stream, Stream]]:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(directory) / "socket")
        listener.bind(path)
        listener.listen(1)
        ours = await UnixStream.connect(path)
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        yield ours, UnixStream(accepted)


@asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[Stream, Stream]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = await anyio.connect_tcp(*listener.getsockname())
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        yield ours, UnixStream(accepted)  # which serves any socket, and has what is not read reset the connection


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Callable[[], anyio.abc.AsyncResource]:
    return request.param


@asynccontextmanager
async def connected(pair: Callable, serve: Serve) -> AsyncIterator[HttpConnection]:
    """A connection to a server that does so; it is closed when the server has done."""

    async def run(stream: Stream) -> None:
        async with stream:
            await serve(stream)

    with anyio.fail_after(LIMIT):
        async with pair() as (ours, theirs), anyio.create_task_group() as tasks:
            tasks.start_soon(run, theirs)
            http = HttpConnection(ours)
            try:
                yield http
            finally:
                await http.aclose()


async def asked(http: HttpConnection, limit: int = 1000) -> tuple[int, bytes]:
    await http.send("GET", "/", HOST)
    head = await http.head()
    return head.status_code, await http.body(limit)


@pytest.mark.parametrize(
    "pieces",
    [
        (SHORT,),
        tuple(bytes([byte]) for byte in SHORT),
        (CHUNKED, b"2\r\nhe\r\n", b"3\r\nl", b"lo\r\n0\r\n", b"Trailer: of no use\r\n\r\n"),
        (b"HTTP/1.0 200 OK\r\n\r\nhel", b"lo"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + SHORT),
    ],
    ids=["whole", "byte by byte", "chunked", "until its end", "after interim answers"],
)
async def test_an_answer_is_read_however_it_is_framed_and_cut(pair: Callable, pieces: tuple[bytes, ...]) -> None:
    async with connected(pair, saying(*pieces)) as http:
        assert await asked(http) == (200, b"hello")
        assert await http.piece() == b""
        assert await http.body(1000) == b"hello"


async def test_a_request_is_sent_whole_with_its_headers_and_no_others(pair: Callable) -> None:
    heard: list[bytes] = []

    async def serve(stream: Stream) -> None:
        heard.append(await stream.receive())
        await stream.send(SHORT)

    async with connected(pair, serve) as http:
        await http.send("POST", "/a?b", [("Host", "here"), ("Content-Length", "4")], b"body")
        assert (await http.head()).status_code == 200
    assert heard == [b"POST /a?b HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nbody"]


async def test_a_large_body_reaches_a_server_that_reads_slowly(pair: Callable) -> None:
    size = 8 * 1024 * 1024
    taken = 0

    async def serve(stream: Stream) -> None:
        nonlocal taken
        while taken < size:
            taken += len(await stream.receive(4096 * 7))
        await stream.send(SHORT)

    async with connected(pair, serve) as http:
        await http.send("POST", "/", [*HOST, ("Content-Length", str(size))], b"0" * size)
        assert (await http.head()).status_code == 200
    assert taken > size


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"nonsense\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "."),
        (CHUNKED + b"no number\r\n", "illegal chunk header"),
        (CHUNKED + b"1" * (MAX_HEAD + 100_000), "illegal chunk header|too long"),
        (b"HTTP/1.1 200 OK\r\nEndless: " + b"0" * (MAX_HEAD + 100_000), "too long"),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_INTERIM_ANSWERS + 1) + SHORT, "interim answers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"0" * 1001, "more than 1000 bytes"),
    ],
    ids=["nonsense", "two lengths", "an upgrade", "chunk", "chunk's length", "head", "interim answers", "body"],
)
async def test_what_is_not_an_answer_or_too_large_is_malformed_though_the_connection_stays_open(
    pair: Callable, answer: bytes, problem: str
) -> None:
    async def serve(stream: Stream) -> None:
        await request_of(stream)
        with suppress(anyio.EndOfStream, OSError):  # the client closes
            await stream.send(answer)
            await stream.receive()

    async with connected(pair, serve) as http:
        with pytest.raises(MalformedAnswer, match=problem):
            await asked(http)
        assert not http.restart()


@pytest.mark.parametrize(
    "pieces",
    [(), (b"HTTP/1.1 200 OK\r\nCont",), (SHORT[:-1],), (CHUNKED, b"2\r\nhe\r\n")],
    ids=["nothing", "half a head", "half a body", "no last chunk"],
)
async def test_an_answer_that_is_cut_is_a_lost_connection_and_not_a_malformed_answer(
    pair: Callable, pieces: tuple[bytes, ...]
) -> None:
    async with connected(pair, saying(*pieces)) as http:
        with pytest.raises(ConnectionLost) as caught:
            await asked(http)
        assert type(caught.value) is ConnectionLost
        assert "closed before the end of the answer" in str(caught.value)
        assert not http.restart()


async def test_a_connection_that_breaks_is_lost_in_either_direction() -> None:
    async def serve(stream: Stream) -> None:
        await stream.receive(1)  # what is left unread makes closing a reset

    async with connected(tcp_pair, serve) as http:
        with pytest.raises(ConnectionLost, match="reset"):
            await asked(http)
    async with unix_pair() as (ours, theirs):
        await theirs.aclose()
        http = HttpConnection(ours)
        with pytest.raises(ConnectionLost, match="Broken pipe"):
            await http.send("GET", "/", HOST)
        assert not http.restart()
        await http.aclose()


async def test_a_request_that_cannot_be_written_is_not_sent(pair: Callable) -> None:
    async with connected(pair, answering()) as http:
        with pytest.raises(InvalidRequest, match="header value"):
            await http.send("GET", "/", [*HOST, ("Token", "two\nlines")])


async def test_after_an_upgrade_the_connection_carries_bytes_none_of_which_is_lost(pair: Callable) -> None:
    async def serve(stream: Stream) -> None:
        await request_of(stream)
        await stream.send(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst")
        await stream.send(b"echo: " + await stream.receive())

    async with connected(pair, serve) as http:
        await http.send("POST", "/", UPGRADE)
        assert (await http.head()).status_code == 101
        assert http.trailing() == b"first"
        assert await http.piece() == b""
        assert not http.restart()
        await http.stream.send(b"second")
        assert await http.stream.receive() == b"echo: second"


async def test_bytes_after_a_head_of_200_belong_to_the_stream_as_well(pair: Callable) -> None:
    """Older daemons hijack a connection so (Docker Engine API, ContainerAttach)."""
    async with connected(pair, saying(b"HTTP/1.1 200 OK\r\nContent-Type: raw\r\n\r\nfirst")) as http:
        await http.send("POST", "/", UPGRADE)
        assert (await http.head()).status_code == 200
        assert http.trailing() == b"first"


async def test_requests_follow_one_another_over_one_connection(pair: Callable) -> None:
    empty = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with connected(pair, answering(SHORT, empty, SHORT)) as http:
        for expected in [(200, b"hello"), (204, b""), (200, b"hello")]:
            assert await asked(http) == expected
            assert http.restart()


@pytest.mark.parametrize(
    "answer",
    [
        SHORT.replace(b"\r\n", b"\r\nConnection: close\r\n", 1),
        SHORT.replace(b"1.1", b"1.0"),
        SHORT + SHORT,
        SHORT + b"x",
    ],
    ids=["closed after it", "HTTP/1.0", "an answer to nothing", "more than its length"],
)
async def test_a_connection_that_is_not_clean_after_an_answer_takes_no_other_request(
    pair: Callable, answer: bytes
) -> None:
    async with connected(pair, answering(answer)) as http:
        assert await asked(http) == (200, b"hello")
        assert not http.restart()


async def test_a_wait_that_was_cancelled_goes_on_where_it_was_and_only_then_is_the_connection_free(
    pair: Callable,
) -> None:
    half, rest = anyio.Event(), anyio.Event()

    async def serve(stream: Stream) -> None:
        await request_of(stream)
        await half.wait()
        await stream.send(SHORT[:-2])
        await rest.wait()
        await stream.send(SHORT[-2:])
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()

    async def cancelled(wait: Callable[[], Coroutine[Any, Any, object]], state: Callable[[], bool]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await until(state)
            tasks.cancel_scope.cancel()

    async with connected(pair, serve) as http:
        await http.send("GET", "/", HOST)
        await cancelled(http.head, lambda: True)
        assert not http.restart()
        half.set()
        assert (await http.head()).status_code == 200
        await cancelled(lambda: http.body(1000), lambda: http._body == b"hel")  # pyright: ignore[reportPrivateUsage]
        assert not http.restart()
        rest.set()
        assert await http.body(1000) == b"hello"
        assert http.restart()
        await http.aclose()


async def test_a_connection_whose_request_was_cancelled_halfway_is_not_used_again(pair: Callable) -> None:
    """Though its server answers what came of it."""

    async def serve(stream: Stream) -> None:
        await request_of(stream)
        await stream.send(SHORT)
        await anyio.sleep_forever()

    async with pair() as (ours, theirs), anyio.create_task_group() as tasks:
        http = HttpConnection(ours)
        size = 64 * 1024 * 1024
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as sending:
                sending.start_soon(http.send, "POST", "/", [*HOST, ("Content-Length", str(size))], b"0" * size)
                assert (await request_of(theirs)).startswith(b"POST")
                sending.cancel_scope.cancel()
            await theirs.send(SHORT)
            assert (await http.head()).status_code == 200
            assert await http.body(1000) == b"hello"
            assert not http.restart()
            await http.aclose()
            await theirs.aclose()
        tasks.cancel_scope.cancel()


async def test_closing_does_not_wait_and_is_done_where_everything_is_cancelled(pair: Callable) -> None:
    async with pair() as (ours, theirs):
        with anyio.fail_after(LIMIT):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await HttpConnection(ours).aclose()
            with pytest.raises(anyio.EndOfStream):
                await theirs.receive()
            await theirs.aclose()
