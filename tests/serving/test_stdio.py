"""The server as a process: what reaches its standard output, what it survives, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import time
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification

from praxis_mcp.serving.stdio import stdio_streams
from praxis_mcp.serving.stdio_reading import ReadStream
from praxis_mcp.serving.wire import Wire, stop_signals
from tests.serving.clients import LIMIT, server_command, server_environment
from tests.serving.sample_tools import python, write_tool
from tests.serving.test_cancel import ended, pid_from

pytestmark = pytest.mark.anyio


class Client:
    """Raw lines to and from a server process."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.stdin = process.stdin
        self.lines = BufferedByteReceiveStream(process.stdout)

    async def send(self, message: dict[str, Any] | bytes) -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        with anyio.fail_after(LIMIT):
            await self.stdin.send(data + b"\n")

    async def receive(self) -> dict[str, Any]:
        with anyio.fail_after(LIMIT):
            return json.loads(await self.lines.receive_until(b"\n", 64 * 1024 * 1024))

    async def request(self, identity: int | str, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        await self.send({"jsonrpc": "2.0", "id": identity, "method": method, "params": params or {}})
        answer = await self.receive()
        assert answer["id"] == identity
        return answer

    async def greet(self) -> None:
        client = {"name": "raw", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        assert "result" in await self.request(0, "initialize", params)
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def call(self, identity: int, tool: str, arguments: dict[str, Any]) -> None:
        params = {"name": tool, "arguments": arguments}
        await self.send({"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": params})

    async def exit_code(self) -> int:
        with anyio.fail_after(LIMIT):
            return await self.process.wait()


@asynccontextmanager
async def running_server(directory: Path, *words: str, **settings: str) -> AsyncIterator[Client]:
    process = await anyio.open_process(
        server_command(*(words or (str(directory),))),
        env=server_environment(**settings),
        cwd=directory,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def test_directories_may_be_named_with_tools_as_for_call(sample_directory: Path) -> None:
    async with running_server(sample_directory.parent, "--tools", sample_directory.name) as wire:
        await wire.greet()
        assert (await wire.request(1, "tools/list"))["result"]["tools"]


MALFORMED = {
    b"{nonsense": -32700,
    b"\xff\xfe": -32700,
    b"[" * 5000: -32700,
    b'[{"jsonrpc": "2.0", "id": 5, "method": "ping"}]': -32600,
    b"{}": -32600,
    b'"text"': -32600,
}


async def test_a_message_that_cannot_be_read_is_answered_and_the_server_lives_on(sample_directory: Path) -> None:
    async with running_server(sample_directory) as wire:
        await wire.greet()
        for line, code in MALFORMED.items():
            await wire.send(line)
            answer = await wire.receive()
            assert (answer["id"], answer["error"]["code"]) == (None, code)
        await wire.send(b"")
        await wire.send(b"  \r")
        await wire.send(b'{"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"cursor": "\\ud800"}}')
        answer = await wire.receive()
        assert (answer["id"], answer["error"]["code"]) == (7, -32600)
        digits = b"9" * 5000
        await wire.send(b'{"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": {"a": %s}}' % digits)
        answer = await wire.receive()
        assert (answer["id"], answer["error"]["code"]) == (8, -32600)
        assert (await wire.request(8, "no/such/method"))["error"]["code"] == -32601
        assert (await wire.request(9, "tools/call", {"name": 5}))["error"]["code"] == -32602
        assert (await wire.request(10, "ping"))["result"] == {}


async def test_a_message_without_an_end_is_refused_and_skipped(sample_directory: Path) -> None:
    async with running_server(sample_directory) as wire:
        await wire.greet()
        for _ in range(65):
            await wire.stdin.send(b"x" * 1024 * 1024)
        await wire.send(b"")
        assert (await wire.receive())["error"]["code"] == -32600
        assert (await wire.request(1, "ping"))["result"] == {}


async def test_nothing_but_messages_reaches_standard_output_from_the_first_byte_on(sample_directory: Path) -> None:
    async with running_server(sample_directory, PRAXIS_LOG_LEVEL="TRACE") as wire:
        await wire.greet()
        await wire.call(1, "printer", {})
        assert (await wire.receive())["id"] == 1
        await wire.stdin.aclose()
        assert await wire.exit_code() == 0
        with anyio.fail_after(LIMIT), pytest.raises((anyio.EndOfStream, anyio.IncompleteRead)):
            await wire.lines.receive_until(b"\n", 1024)


SPLITS_LINES = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei"
"""Whatever ``str.splitlines``, the widest of all readers of lines, ends a line at, beside CR and LF."""


async def test_a_message_is_one_line_for_every_reader_of_lines(sample_directory: Path) -> None:
    async with running_server(sample_directory) as wire:
        await wire.greet()
        for identity, tool in enumerate(("echo", SPLITS_LINES)):
            await wire.call(identity, tool, {"text": SPLITS_LINES})
            with anyio.fail_after(LIMIT):
                line = await wire.lines.receive_until(b"\n", 64 * 1024 * 1024)
            assert line.decode().splitlines() == [line.decode()]
            answer = json.loads(line)
            if tool == "echo":
                assert answer["result"]["content"][0]["text"].rstrip("\n") == SPLITS_LINES


NOISE = """
import os, sys

class Noisy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mcp", "watchfiles", "loguru"):
            print("imported", name, flush=True)
            os.write(1, b"written past Python\\n")

sys.meta_path.insert(0, Noisy())
"""


async def test_a_library_that_prints_cannot_reach_the_wire(sample_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOISE)
    async with running_server(sample_directory, PYTHONPATH=str(tmp_path)) as wire:
        await wire.greet()
        assert (await wire.request(1, "ping"))["result"] == {}


async def test_a_cancelled_request_is_never_answered(sample_directory: Path, tmp_path: Path) -> None:
    async with running_server(sample_directory) as wire:
        await wire.greet()
        await wire.call(1, "wait_for_ever", {"pidfile": str(tmp_path / "pid")})
        pid = await pid_from(tmp_path / "pid")
        await wire.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        await ended(pid)
        assert (await wire.request(2, "ping"))["result"] == {}


@pytest.mark.parametrize("number", stop_signals())
async def test_a_signal_ends_the_server_and_its_calls_though_the_client_stays(
    sample_directory: Path, tmp_path: Path, number: signal.Signals
) -> None:
    async with running_server(sample_directory) as wire:
        await wire.greet()
        await wire.call(1, "wait_for_ever", {"pidfile": str(tmp_path / "pid")})
        pid = await pid_from(tmp_path / "pid")
        wire.process.send_signal(number)
        assert await wire.exit_code() == 0
        await ended(pid)


async def test_the_end_of_standard_input_ends_the_server_and_its_calls(sample_directory: Path, tmp_path: Path) -> None:
    async with running_server(sample_directory) as wire:
        await wire.greet()
        await wire.call(1, "wait_for_ever", {"pidfile": str(tmp_path / "pid")})
        pid = await pid_from(tmp_path / "pid")
        await wire.stdin.aclose()
        assert await wire.exit_code() == 0
        await ended(pid)


async def test_a_client_that_reads_nothing_cannot_keep_the_server_from_ending(sample_directory: Path) -> None:
    async with running_server(sample_directory) as wire:
        await wire.greet()
        for number in range(100):
            await wire.call(number, "big", {})
        wire.process.send_signal(signal.SIGTERM)
        assert await wire.exit_code() == 0


CATCHES_ALL = """
import os, signal, sys

class CatchesAll:
    def find_spec(self, name, path=None, target=None):
        if name == "mcp":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException:
                pass

sys.meta_path.insert(0, CatchesAll())
"""


async def test_a_signal_in_the_midst_of_an_import_that_catches_all_ends_the_server(
    sample_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CATCHES_ALL)
    async with running_server(sample_directory, PYTHONPATH=str(tmp_path)) as wire:
        assert await wire.exit_code() == 0


async def test_a_client_that_closes_its_reading_end_ends_the_server(sample_directory: Path) -> None:
    read_end, write_end = os.pipe()
    process = await anyio.open_process(
        server_command(str(sample_directory)),
        env=server_environment(),
        cwd=sample_directory,
        stdout=write_end,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    try:
        assert process.stdin is not None
        with anyio.fail_after(LIMIT):
            await process.stdin.send(b"no message\n")
            assert await anyio.to_thread.run_sync(os.read, read_end, 4096)
            os.close(read_end)
            await process.stdin.send(b"no message\n")
        with anyio.fail_after(LIMIT):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()


async def test_a_tool_that_reads_its_standard_input_does_not_take_the_clients_messages(sample_directory: Path) -> None:
    async with running_server(sample_directory) as wire:
        await wire.greet()
        await wire.call(1, "reader", {})
        await wire.send({"jsonrpc": "2.0", "id": 2, "method": "ping"})
        answers = {answer["id"]: answer for answer in [await wire.receive(), await wire.receive()]}
        assert answers[2]["result"] == {}
        assert "nothing was written" in answers[1]["result"]["content"][0]["text"]


@asynccontextmanager
async def what_was_read(data: bytes) -> AsyncIterator[tuple[ReadStream, BufferedByteReceiveStream]]:
    """What the server's loop reads where that came from the client, and what the client is answered."""
    own, other = socket.socketpair()
    with own, other:
        wire = Wire(own.fileno(), own.fileno(), data)
        async with (
            await anyio.abc.SocketStream.from_socket(other) as answers,
            stdio_streams(wire) as (incoming, _),
        ):
            yield incoming, BufferedByteReceiveStream(answers)


def notification(text: str) -> SessionMessage:
    return SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="notifications/message", params={"data": text}))


async def test_no_message_overtakes_another_that_was_sent_before_it() -> None:
    """A progress notification behind the answer of its request would be a fault. Here the first does not fit into the
    pipe, so that the rest of it waits for the client, and the others for that."""
    texts = ["x" * 1_000_000, "second", "y" * 300_000, "last"]
    own, other = socket.socketpair()
    with own, other:
        async with (
            await anyio.abc.SocketStream.from_socket(other) as client,
            stdio_streams(Wire(own.fileno(), own.fileno())) as (_, outgoing),
        ):
            got: list[Any] = []
            with anyio.fail_after(LIMIT):
                async with anyio.create_task_group() as tasks:
                    for text in texts:
                        tasks.start_soon(outgoing.send, notification(text))
                    lines = BufferedByteReceiveStream(client)
                    got += [json.loads(await lines.receive_until(b"\n", 2_000_000)) for _ in texts]
    assert [message["params"]["data"] for message in got] == texts


async def test_a_sender_that_is_cancelled_leaves_its_message_whole() -> None:
    own, other = socket.socketpair()
    with own, other:
        async with (
            await anyio.abc.SocketStream.from_socket(other) as client,
            stdio_streams(Wire(own.fileno(), own.fileno())) as (_, outgoing),
        ):
            got: list[Any] = []
            with anyio.fail_after(LIMIT):
                with anyio.CancelScope() as scope:
                    await outgoing.send(notification("x" * 1_000_000))  # a part of it is written, the rest waits
                    scope.cancel()
                    await outgoing.send(notification("of a call that is over"))
                lines = BufferedByteReceiveStream(client)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(outgoing.send, notification("next"))
                    got += [json.loads(await lines.receive_until(b"\n", 2_000_000)) for _ in range(2)]
    assert [message["params"]["data"][:4] for message in got] == ["xxxx", "next"]


async def test_thousands_that_wait_for_a_client_are_let_go_at_once() -> None:
    """A server that is told to end would be killed meanwhile."""
    own, other = socket.socketpair()
    with own, other:
        async with stdio_streams(Wire(own.fileno(), own.fileno())) as (_, outgoing):
            began = time.process_time()
            with anyio.fail_after(LIMIT):
                await outgoing.send(notification("x" * 1_000_000))
                async with anyio.create_task_group() as tasks:
                    for _ in range(6000):
                        tasks.start_soon(outgoing.send, notification("later"))
                    await anyio.wait_all_tasks_blocked()
                    tasks.cancel_scope.cancel()
            assert time.process_time() - began < 5  # where each looks through all for its own, 14
            other.close()


async def test_a_file_has_each_message_once_it_is_sent(tmp_path: Path) -> None:
    """Behind `praxis-mcp serve < requests > answers` the input ends at once, and with it what has still to be sent."""
    path = tmp_path / "answers"
    own, other = socket.socketpair()
    with own, other, path.open("wb") as file:
        async with stdio_streams(Wire(own.fileno(), file.fileno())) as (_, outgoing):
            for text in ("first", "second"):
                await outgoing.send(notification(text))
                assert json.loads(path.read_text().splitlines()[-1])["params"]["data"] == text


async def test_a_million_blank_lines_cost_what_they_are_long() -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    began = time.process_time()
    async with what_was_read(b"\n" * 1_000_000 + json.dumps(ping).encode() + b"\n") as (incoming, _):
        with anyio.fail_after(LIMIT):
            message = await incoming.receive()
    assert isinstance(message, SessionMessage)
    assert time.process_time() - began < 10  # where each line costs what is left behind it, 40


async def test_other_work_goes_on_while_a_long_message_is_decoded() -> None:
    turns = 0

    async def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with what_was_read(b"[" + b"1," * 2_000_000 + b"1]\n") as found, anyio.create_task_group() as tasks:
        incoming, answers = found
        tasks.start_soon(work)
        tasks.start_soon(incoming.receive)  # as the server's loop does
        with anyio.fail_after(LIMIT):
            assert json.loads(await answers.receive_until(b"\n", 4096))["error"]["code"] == -32600
        tasks.cancel_scope.cancel()
    assert turns > 50


def ends(kind: str) -> tuple[int, int, int, int]:
    """Standard input and output of a server, and the client's ends of them."""
    if kind == "a terminal":
        own, other = pty.openpty()
        tty.setraw(other)
        given = (other, os.dup(other), own, os.dup(own))
    elif "socket" in kind:
        ours, theirs = socket.socketpair()
        own, other = ours.detach(), theirs.detach()
        given = (own, os.dup(own), other, os.dup(other))
    else:
        (read, write), (answer_read, answer_write) = os.pipe(), os.pipe()
        given = (read, answer_write, write, answer_read)
    for descriptor in given[:2] if "non-blocking" in kind else ():
        os.set_blocking(descriptor, False)
    return given


@pytest.mark.parametrize("kind", ["pipes", "non-blocking pipes", "sockets", "non-blocking sockets", "a terminal"])
async def test_standard_streams_of_any_kind_carry_messages_of_any_length(kind: str, tmp_path: Path) -> None:
    write_tool(tmp_path, "long", python("print('x' * 3_000_000)"), max_output=4_000_000)
    taken, given, requests, answers = ends(kind)
    server = subprocess.Popen(
        server_command(str(tmp_path)), env=server_environment(), stdin=taken, stdout=given, stderr=subprocess.DEVNULL
    )
    os.close(taken)
    os.close(given)
    try:
        client = {"name": "raw", "version": "1"}
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        messages = [
            {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {"jsonrpc": "2.0", "id": 1, "method": "no/such/method", "params": {"text": "y" * 1_000_000}},
            {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "long", "arguments": {}}},
        ]

        def converse() -> list[Any]:
            with open(requests, "wb", buffering=0) as out, open(answers, "rb") as back:
                found = []
                for message in messages:
                    left = memoryview(json.dumps(message).encode() + b"\n")
                    while left:
                        left = left[out.write(left) :]
                    if "id" in message:
                        found.append(json.loads(back.readline()))
                return found

        with anyio.fail_after(LIMIT):
            greeting, refusal, result = await anyio.to_thread.run_sync(converse, abandon_on_cancel=True)
        assert greeting["result"]["serverInfo"]
        assert refusal["error"]["code"] == -32601
        assert len(result["result"]["content"][0]["text"]) > 3_000_000
        with anyio.fail_after(LIMIT):
            assert await anyio.to_thread.run_sync(server.wait, abandon_on_cancel=True) == 0
    finally:
        server.kill()
        server.wait()


async def test_what_a_client_has_sent_that_is_gone_is_neither_handed_on_nor_an_error() -> None:
    """Its answers cannot be written: that ends the connection as a closed standard input does."""
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    own, other = socket.socketpair()
    other.close()
    with own:
        wire = Wire(own.fileno(), own.fileno(), b"no message\n" * 10 + ping + b"\n")
        async with stdio_streams(wire) as (incoming, _):
            with anyio.fail_after(LIMIT), pytest.raises(anyio.EndOfStream):
                await incoming.receive()
            with anyio.fail_after(LIMIT), pytest.raises(anyio.EndOfStream):
                await incoming.receive()


async def test_others_get_their_turn_while_a_client_sends_without_pause() -> None:
    turns = 0

    async def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    async with what_was_read((ping + b"\n") * 3000) as (incoming, _), anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        with anyio.fail_after(LIMIT):
            for _ in range(3000):
                assert isinstance(await incoming.receive(), SessionMessage)
        tasks.cancel_scope.cancel()
    assert turns > 50
