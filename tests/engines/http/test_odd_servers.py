"""Servers that are slow, endless, packed, gone or not who they say: a call ends in time and says what was wrong."""

from __future__ import annotations

import gzip
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.engines.http.engine import HttpEngine
from praxis_mcp.errors import ExecutionError, LimitUnsupported
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import PolicySettings
from tests.engines.http.raw_server import DAY, answering, certificate_for
from tests.engines.http.test_http_engine import contract, run
from tests.kit.ports import held_port
from tests.kit.until import until

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
FINE = HEAD + b"Content-Length: 2\r\n\r\nok"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[HttpEngine]:
    settings = Settings(root=tmp_path, policy=PolicySettings(private_hosts=("127.0.0.1", "rebound.example")))
    async with HttpEngine(settings) as engine:
        yield engine


def saying(data: bytes) -> Callable[[socket.socket, int], None]:
    def answer(connection: socket.socket, _: int) -> None:
        connection.sendall(data)

    return answer


def endlessly(head: bytes, piece: bytes, pause: float = 0) -> Callable[[socket.socket, int], None]:
    def answer(connection: socket.socket, _: int) -> None:
        connection.sendall(head)
        stopped = threading.Event()
        while not stopped.wait(pause):
            connection.sendall(piece)

    return answer


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expires", "is_known", "said", "remedy"),
    [
        ("127.0.0.1", DAY, False, "self-signed", "SSL_CERT_FILE"),
        ("127.0.0.2", DAY, True, "127.0.0.1", "the name that the certificate has"),
        ("127.0.0.1", -DAY, True, "expired", "renew"),
    ],
)
async def test_a_certificate_that_is_not_valid_is_refused_with_what_is_wrong_and_no_request_is_sent(
    engine: HttpEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expires: Any, is_known: bool,
    said: str, remedy: str,
) -> None:  # fmt: skip
    files = certificate_for(tmp_path, name, expires)
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    with answering(saying(FINE), files) as server:
        with pytest.raises(ExecutionError, match=said) as refused:
            await run(engine, contract(f"https://127.0.0.1:{server.port}/"))
        assert f"The certificate of 127.0.0.1:{server.port} was refused" in str(refused.value)
        assert remedy in (refused.value.remedy or "")
        assert server.requests == 0


async def test_an_authority_of_ones_own_is_trusted_where_the_environment_names_it(
    engine: HttpEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = certificate_for(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    with answering(saying(FINE), files) as server:
        assert (await run(engine, contract(f"https://127.0.0.1:{server.port}/"))).output == "ok"
        # And the other way around.
        with pytest.raises(ExecutionError, match="before it gave a whole answer"):
            await run(engine, contract(server.url))
    with answering(saying(FINE)) as server, pytest.raises(ExecutionError, match="TLS"):
        await run(engine, contract(f"https://127.0.0.1:{server.port}/"))


async def test_certificates_that_cannot_be_read_are_an_error_that_names_the_variable(
    engine: HttpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")
    with pytest.raises(ExecutionError, match="cannot be read") as refused:
        await run(engine, contract("https://127.0.0.1:9/"))
    assert "SSL_CERT_FILE" in (refused.value.remedy or "")


# --- connections ------------------------------------------------------------------------------------------------------


async def test_a_kept_connection_that_ends_costs_a_get_nothing_and_a_post_is_not_sent_twice(
    engine: HttpEngine,
) -> None:
    def answer(connection: socket.socket, number: int) -> None:
        if number % 2 == 0:
            connection.sendall(FINE)
        else:
            connection.close()

    with answering(answer) as server:
        for _ in range(3):
            assert (await run(engine, contract(server.url))).output == "ok"
        assert server.requests == 5
        with pytest.raises(ExecutionError, match="closed the connection") as lost:
            await run(engine, contract(server.url, method="POST"))
        assert "It may have done what was asked" in (lost.value.remedy or "")
        assert server.requests == 6


async def test_a_server_that_never_answers_is_asked_once(engine: HttpEngine) -> None:
    with answering(lambda connection, _: connection.close()) as server:
        with pytest.raises(ExecutionError, match="closed the connection"):
            await run(engine, contract(server.url))
        assert server.requests == 1


async def test_a_call_that_is_cancelled_closes_its_connection(engine: HttpEngine) -> None:
    def wait(connection: socket.socket, _: int) -> None:
        connection.recv(1)

    slow = endlessly(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.05)
    for answer in (wait, slow):
        with answering(answer) as server:
            async with anyio.create_task_group() as group:
                group.start_soon(run, engine, contract(server.url))
                await until(lambda server=server: server.requests)
                group.cancel_scope.cancel()
            await until(lambda server=server: server.ended)


async def test_the_address_that_was_judged_is_the_one_that_is_connected_to(
    engine: HttpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    there = socket.getaddrinfo
    answers = ["192.88.99.1", "127.0.0.1", "127.0.0.1"]  # the first was given back (RFC 7526): nobody is there

    def changing(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host not in ("changing.example", b"changing.example"):
            return there(host, port, *rest, **options)
        looked_up.append("changing.example")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers[len(looked_up) - 1], port))]

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    with answering(saying(FINE)) as server:
        found = contract(f"http://changing.example:{server.port}/", timeout=2)
        try:
            assert (await run(engine, found)).timed_out
        except ExecutionError as exc:
            assert "cannot be reached" in str(exc)  # noqa: PT017 - there may be a way to nowhere, or none
        assert looked_up == ["changing.example"]
        with pytest.raises(LimitUnsupported):
            await run(engine, found)
        assert len(looked_up) == 2
        assert server.requests == 0


async def test_a_proxy_of_the_environment_is_not_asked_and_is_named_where_nothing_is_reached(
    engine: HttpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(saying(FINE)) as proxy, answering(saying(FINE)) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert (await run(engine, contract(server.url))).output == "ok"
        assert proxy.requests == 0
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with held_port() as port, pytest.raises(ExecutionError, match="Connection refused") as lost:
        await run(engine, contract(f"http://127.0.0.1:{port}/"))
    assert "Proxies of the environment are not used" in (lost.value.remedy or "")


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
async def test_a_packed_answer_is_unpacked_though_none_is_asked_for(
    engine: HttpEngine, pack: Callable[[bytes], bytes]
) -> None:
    kind = "gzip" if pack is gzip.compress else "deflate"
    body = pack("héllo".encode() * 1000)
    head = HEAD + f"Content-Encoding: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with answering(saying(head + body)) as server:
        for _ in range(2):
            assert (await run(engine, contract(server.url, max_response=6000))).output == "héllo" * 1000
    with (
        answering(saying(head + b"x" * len(body))) as server,
        pytest.raises(ExecutionError, match="cannot be unpacked"),
    ):
        await run(engine, contract(server.url))


@pytest.mark.parametrize("size", [1, 2, 7, 1000], ids=lambda size: f"{size} bytes at a time")
@pytest.mark.parametrize("behind", [b"", b"\0" * 8, b"odd", b"\x1f"], ids=["nothing", "zeros", "text", "half a mark"])
async def test_every_member_of_a_packed_answer_is_unpacked(engine: HttpEngine, size: int, behind: bytes) -> None:
    body = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two") + behind
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    head = HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    with answering(saying(head + data + b"0\r\n\r\n")) as server:
        assert (await run(engine, contract(server.url))).output == "one two"


@pytest.mark.parametrize(
    "second",
    [gzip.compress(b"two" * 99)[:-1], gzip.compress(b"two")[:-8] + bytes(8), gzip.compress(b"") * 10_000],
    ids=["cut off", "damaged", "far too many"],
)
async def test_a_member_that_cannot_be_unpacked_fails_the_call(engine: HttpEngine, second: bytes) -> None:
    body = gzip.compress(b"one ") + second
    head = HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with answering(saying(head + body)) as server, pytest.raises(ExecutionError, match="cannot be unpacked"):
        await run(engine, contract(server.url))


async def test_the_bound_of_an_answer_holds_for_all_of_its_members_together(engine: HttpEngine) -> None:
    body = gzip.compress(b"x" * 600) * 2
    head = HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with answering(saying(head + body)) as server:
        assert (await run(engine, contract(server.url, max_response=1200))).output == "x" * 1200
        result = await run(engine, contract(server.url, max_response=1199))
    assert (result.exit_code, result.stdout.total) == (1, 1199)


async def test_a_packed_answer_that_unpacks_to_gigabytes_is_cut(engine: HttpEngine) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(1024)) + packer.flush()  # 1 MiB of zeros' zeros
    head = HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with answering(saying(head + body)) as server:
        result = await run(engine, contract(server.url, max_response=100_000))
    assert (result.exit_code, result.stdout.total) == (1, 100_000)
    assert "cut" in result.stderr.text


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b"x" * 1024 + b"\r\n"),
        (b"\r\n", b"x" * 1024),
        (b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"ok"), b"x" * 1024),
        (b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\0", b"x" * 1024),
    ],
    ids=["chunks", "no length", "after what was packed", "a name without end"],
)
async def test_an_answer_without_end_is_cut(engine: HttpEngine, head: bytes, piece: bytes) -> None:
    with answering(endlessly(HEAD + head, piece)) as server:
        result = await run(engine, contract(server.url, max_response=200_000))
    assert result.exit_code == 1
    assert "more than 200000 bytes" in result.stderr.text


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (HEAD + b"X-A: ", b"x" * 1024),
        (b"", b"x" * 1024),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a=", b"x" * 1024),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n" * 100),
    ],
    ids=["a header", "a first line", "a chunk's extension", "trailers"],
)
async def test_a_head_without_end_is_an_error(engine: HttpEngine, head: bytes, piece: bytes) -> None:
    with answering(endlessly(head, piece)) as server, pytest.raises(ExecutionError, match="HTTP"):
        await run(engine, contract(server.url))


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"x"),
        (HEAD + b"Content-Length: 99999\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["header", "body", "chunks", "continue"],
)
async def test_an_answer_that_comes_a_byte_at_a_time_ends_at_the_deadline(
    engine: HttpEngine, head: bytes, piece: bytes
) -> None:
    with answering(endlessly(head, piece, 0.02)) as server:
        assert (await run(engine, contract(server.url, timeout=0.7))).timed_out
        await until(lambda: server.ended)


async def test_notices_that_an_answer_will_come_do_not_keep_others_waiting(engine: HttpEngine) -> None:
    with answering(endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)) as odd, answering(saying(FINE)) as server:
        async with anyio.create_task_group() as group:
            group.start_soon(run, engine, contract(odd.url))
            await until(lambda: odd.requests)
            assert (await run(engine, contract(server.url))).output == "ok"
            group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("to", "arrives"),
    [("/a b", "/a%20b"), ("/\xc3\xa9", "/%C3%A9"), ('/a"<>', "/a%22%3C%3E"), ("/a%20b?c=%2F", "/a%20b?c=%2F")],
)
async def test_a_redirect_that_is_written_as_people_write_it_is_followed(
    engine: HttpEngine, to: str, arrives: str
) -> None:
    asked: list[bytes] = []

    def answer(connection: socket.socket, number: int) -> None:
        head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + to.encode("latin-1") + b"\r\n\r\n"
        connection.sendall(FINE if number else head)

    with answering(answer, asked=asked) as server:
        assert (await run(engine, contract(server.url, follow_redirects=True))).output == "ok"
    assert asked[1].startswith(f"GET {arrives} HTTP/1.1".encode())


async def test_a_redirect_with_a_user_in_it_is_not_followed(engine: HttpEngine) -> None:
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://user:pass@127.0.0.1/\r\n\r\n"
    with answering(saying(head)) as server:
        result = await run(engine, contract(server.url, follow_redirects=True))
    assert "which was not followed" in result.stderr.text
