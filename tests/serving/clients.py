"""Real MCP clients on the server, over every transport and in both protocol eras."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
from mcp import Client, StdioServerParameters
from mcp.client._memory import InMemoryTransport
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.serving.mcp.server import PraxisServer
from praxis_mcp.settings.model import Settings
from tests.kit.measuring import measured

Transport = Literal["memory", "stdio", "http", "sse"]
Era = Literal["legacy", "modern"]

ERAS: tuple[Era, ...] = ("legacy", "modern")
LINES: tuple[tuple[Transport, Era], ...] = (
    ("memory", "legacy"),
    ("memory", "modern"),
    ("stdio", "legacy"),
    ("stdio", "modern"),
    ("http", "legacy"),
    ("http", "modern"),
    ("sse", "legacy"),
)
"""Every transport with every era that is spoken over it."""
LIMIT = 60.0
"""Seconds that any step of a test may take; reached only when something hangs."""

ENVIRONMENT = {
    "PRAXIS_CALLS__HEARTBEAT": "0.4",
    "PRAXIS_ENGINES__LOCAL__SANDBOX": "off",
    "PRAXIS_PREFETCH": "false",
}


def server_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "praxis_mcp", "serve", *arguments]


def server_environment(**settings: str) -> dict[str, str]:
    own = {name: os.environ[name] for name in ("PATH", "XDG_STATE_HOME")}
    return {**own, **measured(), **ENVIRONMENT, **settings}


def settings_for(directory: Path, **sections: Any) -> Settings:
    """The settings that `ENVIRONMENT` gives a server process, for one in memory."""
    base: dict[str, Any] = {
        "tools": [directory],
        "root": directory,
        "prefetch": False,
        "calls": {"heartbeat": 0.4},
        "engines": {"local": {"sandbox": "off"}},
    }
    return Settings(**{**base, **sections})


@asynccontextmanager
async def open_server(settings: Settings) -> AsyncIterator[tuple[Toolbox, PraxisServer]]:
    async with (
        open_toolbox(settings, scan_in_background=True) as toolbox,
        PraxisServer.open(toolbox) as server,
    ):
        yield toolbox, server


@asynccontextmanager
async def memory_client(server: PraxisServer, era: Era, **options: Any) -> AsyncIterator[Client]:
    """A client on a server in this process, with real JSON-RPC between them."""
    mode = "legacy" if era == "legacy" else "auto"
    async with Client(InMemoryTransport(server.mcp), mode=mode, read_timeout_seconds=LIMIT, **options) as client:
        yield client


@asynccontextmanager
async def connect(
    transport: Transport, era: Era, directory: Path, environment: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """A client on a server of its own that serves `directory`. `environment`: of one that is a process of its own."""
    if transport == "memory":
        async with (
            open_server(settings_for(directory)) as (_, server),
            memory_client(server, era, **options) as client,
        ):
            yield client
        return
    mode = "legacy" if era == "legacy" else "auto"
    if transport in ("http", "sse"):
        from tests.serving.http_server import running_http

        async with running_http(directory, **(environment or {})) as server:
            # An event may be as long as a result: ours are bounded.
            line = (
                sse_client(server.sse)
                if transport == "sse"
                else streamable_http_client(server.mcp, max_sse_event_size=None)
            )
            async with Client(line, mode=mode, read_timeout_seconds=LIMIT, **options) as client:
                yield client
        return
    parameters = StdioServerParameters(
        command=sys.executable,
        args=server_command(str(directory))[1:],
        env=server_environment(**(environment or {})),
        cwd=directory,
    )
    async with Client(parameters, mode=mode, read_timeout_seconds=LIMIT, **options) as client:
        yield client


@dataclass(frozen=True)
class Peer:
    """A connected client, and how it is connected."""

    client: Client
    transport: Transport
    era: Era

    async def call(self, name: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        with anyio.fail_after(LIMIT):
            return await self.client.call_tool(name, arguments or {}, **options)


def text_of(result: Any) -> str:
    """All text of a result."""
    return "\n".join(block.text for block in result.content if block.type == "text")
