"""A real server process on a free port of the loopback, as `praxis-mcp serve --http --sse` starts it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.serving.clients import LIMIT, server_command, server_environment

BOTH = ("--http", "--sse")


@dataclass
class HttpServer:
    """The process, the URL it listens on, and what it has logged."""

    process: anyio.abc.Process
    base: str = ""
    log: list[str] = field(default_factory=list)
    listening: anyio.Event = field(default_factory=anyio.Event)

    @property
    def mcp(self) -> str:
        return f"{self.base}/mcp"

    @property
    def sse(self) -> str:
        return f"{self.base}/sse"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_code(self, within: float = LIMIT) -> int:
        with anyio.fail_after(within):
            return await self.process.wait()

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace")
                self.log.append(text)
                message = str(json.loads(text)["message"]) if text.startswith("{") else text
                if message.startswith("Listening on "):
                    self.base = message.removeprefix("Listening on ").rpartition("/")[0]
                    self.listening.set()
        self.listening.set()


@asynccontextmanager
async def running_http(
    directory: Path, *flags: str, http: Mapping[str, Any] | None = None, port: int = 0, **environment: str
) -> AsyncIterator[HttpServer]:
    """A server of `directory`; `http` is that section of its settings, 0 any port.

    It closes no idle connection by itself: that might be just when a request comes that had to wait for the machine.
    """
    section = {"keep_alive": 3600, **(http or {})}
    settings = {f"PRAXIS_HTTP__{key.upper()}": _text(value) for key, value in section.items()}
    process = await anyio.open_process(
        server_command(str(directory), *(flags or BOTH), "--port", str(port)),
        env=server_environment(**{"PRAXIS_LOG_LEVEL": "DEBUG", **settings, **environment}),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    server = HttpServer(process)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.read_log)
            with anyio.fail_after(LIMIT):
                await server.listening.wait()
            assert server.base, "\n".join(server.log)
            yield server
            tasks.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def http_client(token: str = "", **options: Any) -> httpx2.AsyncClient:
    """A plain HTTP client, whose idle connections stay open for as long as the server keeps them."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    limits = httpx2.Limits(keepalive_expiry=None)
    return httpx2.AsyncClient(headers=headers, timeout=LIMIT, limits=limits, **options)


@asynccontextmanager
async def client_of(server: HttpServer, token: str = "", **options: Any) -> AsyncIterator[Client]:
    """An MCP client, which may have a token."""
    async with http_client(token) as http:
        line = streamable_http_client(server.mcp, http_client=http, max_sse_event_size=None)
        async with Client(line, read_timeout_seconds=LIMIT, **options) as client:
            yield client


def modern_request(
    method: str, params: Mapping[str, Any] | None = None, capabilities: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """A request of a client of the newer era, and its headers, but for the name of what it is about."""
    version = "2026-07-28"
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": capabilities or {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**(params or {}), "_meta": meta}}
    return body, {**ACCEPT, "MCP-Protocol-Version": version, "Mcp-Method": method}


def initialize_body() -> dict[str, Any]:
    """The first message of a client of the older era."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


ACCEPT = {"Accept": "application/json, text/event-stream"}
