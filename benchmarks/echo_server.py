"""A server that is called directly and through relays, and the least relay that the MCP SDK alone makes of it.

    python -m benchmarks.echo_server stdio|http                  # the server
    python -m benchmarks.echo_server stdio|http --relay ADDRESS  # the relay of one; a JSON list is a command

Over HTTP it prints its port on standard output once it listens.
"""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

WORK = 0.02
"""Seconds that the tool ``work`` takes."""
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
_TEXT_OR_NOTHING = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
RECORD = {"type": "object", "properties": {f"field{number}": _TEXT_OR_NOTHING for number in range(8)}}
"""What pydantic makes of a model of eight optional fields, as servers written in Python have them."""
TOOLS = [
    *(types.Tool(name=name, description="Says what it was given.", input_schema=SCHEMA) for name in ("echo", "work")),
    types.Tool(name="record", description="Says it in a record.", input_schema=SCHEMA, output_schema=RECORD),
]


async def list_tools(_ctx: object, _params: object) -> types.ListToolsResult:
    return types.ListToolsResult(tools=TOOLS)


async def call_tool(_ctx: object, params: types.CallToolRequestParams) -> types.CallToolResult:
    if params.name == "work":
        await anyio.sleep(WORK)
    text = str((params.arguments or {})["text"])
    record = {"field0": text} if params.name == "record" else None
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=record)


def build(upstream: Client | None) -> Server[Any]:
    """The server, or the relay of one."""

    async def relay(_ctx: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        assert upstream is not None
        request = types.CallToolRequest(
            params=types.CallToolRequestParams(name=params.name, arguments=params.arguments)
        )
        return await upstream.session.send_request(request, types.CallToolResult)

    return Server(
        "echo",
        version="1",
        on_list_tools=list_tools,
        on_call_tool=call_tool if upstream is None else relay,
        get_tool_input_schema=lambda _name: SCHEMA,
    )


@asynccontextmanager
async def connected(address: str | list[str]) -> AsyncIterator[Client]:
    """A client, as the SDK makes it, of a URL or a command."""
    if isinstance(address, str):
        async with Client(address, cache=None) as client:
            yield client
        return
    parameters = StdioServerParameters(command=address[0], args=address[1:])
    async with Client(stdio_client(parameters), cache=None) as client:
        yield client


async def serve(transport: str, address: str | list[str] | None) -> None:
    """Serve until killed, or until standard input ends."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(connected(address)) if address else None
        server = build(upstream)
        if transport == "http":
            await serve_http(server)
            return
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())


async def serve_http(server: Server[Any]) -> None:
    """Serve on a free port of the loopback."""
    import uvicorn

    # Without the protocol's number asyncio leaves Nagle's algorithm on, and each answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="error", timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=("stdio", "http"))
    parser.add_argument("--relay", metavar="ADDRESS")
    options = parser.parse_args()
    address = options.relay
    if address and address.startswith("["):
        address = json.loads(address)
    anyio.run(serve, options.transport, address)


if __name__ == "__main__":
    main()
