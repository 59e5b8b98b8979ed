"""Real server processes under load, each with a client that can be torn away from it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import anyio
import anyio.abc
import httpx2
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.chaos.ground import Ground
from tests.kit.until import until

Way = Literal["SIGKILL", "SIGTERM", "closed stdin", "disconnect"]
WAYS: tuple[Way, ...] = ("SIGKILL", "SIGTERM", "closed stdin", "disconnect")
WORKERS = 8
"""Calls under way at once, beside those that do not end."""
EXIT_LIMIT = 60.0
"""Seconds within which a server that was asked to end has ended."""
START_LIMIT = 60.0
_TORN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead, OSError)


class StdioPeer:
    """A server, and a client that speaks JSON-RPC over its standard input and output."""

    def __init__(self, process: anyio.abc.Process, mark: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.mark = mark
        self.answers = 0
        self.answered = anyio.Event()
        self.refused: list[str] = []
        self._input = process.stdin
        self._output = process.stdout
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._waiting: dict[int, anyio.Event] = {}
        self._results: dict[int, dict[str, Any]] = {}
        self._number = 0
        self._sending = anyio.Lock()

    async def open(self) -> None:
        """Shake hands, and list the tools."""
        await self.greet()
        await self.request("tools/list", {})

    async def greet(self) -> None:
        """Shake hands."""
        client = {"name": "chaos", "version": "1"}
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        await self.request("initialize", about)
        self.answered.set()
        await self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def call(self, engine: str, kind: str) -> dict[str, Any]:
        """Call a tool and give its answer."""
        arguments = {"mark": self.mark, **({"text": "some text"} if kind == "filed" else {})}
        answer = await self.request("tools/call", {"name": f"{engine}_{kind}", "arguments": arguments})
        self.answers += 1
        result = answer.get("result") or {"isError": True, "content": [answer.get("error")]}
        if result.get("isError"):
            self.refused.append(f"{engine}_{kind}: {result['content']}")
        return result

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        number = self._number
        self._waiting[number] = anyio.Event()
        await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        await self._waiting[number].wait()
        return self._results.pop(number)

    async def read(self) -> None:
        """Take answers in, until the server is gone."""
        try:
            while True:
                message = json.loads(await self._lines.receive_until(b"\n", 64 * 1024 * 1024))
                if (waiting := self._waiting.pop(message.get("id"), None)) is not None:
                    self._results[message["id"]] = message
                    waiting.set()
        except _TORN:
            return
        finally:
            self.answered.set()  # or never will: whoever waits must go on, and find that

    async def tear(self, *, output: bool) -> None:
        """Close standard input, and with `output` the other end as well, as the death of the client does."""
        if output:
            await self._output.aclose()
        await self._input.aclose()

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending:
            await self._input.send(json.dumps(message).encode() + b"\n")


async def until_torn(function: Callable[..., Awaitable[Any]], *args: Any) -> None:
    """Call it; that the server is gone meanwhile is no failure."""
    with suppress(*_TORN):
        await function(*args)


async def load(peer: StdioPeer, ground: Ground, dice: random.Random) -> None:
    """Call tools of every engine, some that never end among them, until cancelled or the server is gone."""

    async def work() -> None:
        while True:
            await peer.call(*dice.choice([tool for tool in ground.tools if tool[1] != "long"]))

    async def begin() -> None:
        await peer.open()
        async with anyio.create_task_group() as tasks:
            for engine, kind in ground.tools:
                if kind == "long":
                    tasks.start_soon(until_torn, peer.call, engine, kind)
            for _ in range(WORKERS):
                tasks.start_soon(until_torn, work)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.read)
        await until_torn(begin)


@asynccontextmanager
async def stdio_peer(ground: Ground, log: Path, **environment: Any) -> AsyncIterator[StdioPeer]:
    """A server over stdio; killed at the end, if it has not ended before."""
    command = [sys.executable, "-m", "praxis_mcp", "serve", str(ground.root / "tools")]
    with log.open("wb") as file:
        process = await anyio.open_process(
            command, env=ground.environment(**environment), cwd=ground.root, stderr=file, start_new_session=True
        )
        try:
            yield StdioPeer(process, uuid4().hex)
        finally:
            await _killed(process)


@asynccontextmanager
async def http_server(ground: Ground, log: Path, **environment: Any) -> AsyncIterator[tuple[anyio.abc.Process, str]]:
    """A server over Streamable HTTP, and its URL; killed at the end, if it has not ended before."""
    command = [sys.executable, "-m", "praxis_mcp", "serve", str(ground.root / "tools"), "--http", "--port", "0"]
    with log.open("wb") as file:
        process = await anyio.open_process(
            command, env=ground.environment(**environment), cwd=ground.root, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=file, start_new_session=True,
        )  # fmt: skip
        try:
            said = await until(
                lambda: [line for line in log.read_text().splitlines() if line.startswith("Listening on ")],
                within=START_LIMIT,
            )
            yield process, said[0].removeprefix("Listening on ")
        finally:
            await _killed(process)


async def http_load(url: str, ground: Ground, dice: random.Random, mark: str) -> None:
    """As `load`, over HTTP: one real client, whose connections break when this is cancelled."""

    async def call(client: Client, engine: str, kind: str) -> None:
        arguments = {"mark": mark, **({"text": "some text"} if kind == "filed" else {})}
        await client.call_tool(f"{engine}_{kind}", arguments)

    async def work(client: Client) -> None:
        while True:
            await call(client, *dice.choice([tool for tool in ground.tools if tool[1] != "long"]))

    try:
        async with Client(streamable_http_client(url)) as client:
            await client.list_tools()
            async with anyio.create_task_group() as tasks:
                for engine, kind in ground.tools:
                    if kind == "long":
                        tasks.start_soon(call, client, engine, kind)
                for _ in range(WORKERS):
                    tasks.start_soon(work, client)
    except* (*_TORN, MCPError, httpx2.HTTPError):
        pass  # the server was killed under it


async def ended(process: anyio.abc.Process) -> int:
    """The exit code of a server that was told to end."""
    with anyio.fail_after(EXIT_LIMIT):
        return await process.wait()


async def _killed(process: anyio.abc.Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.aclose()
