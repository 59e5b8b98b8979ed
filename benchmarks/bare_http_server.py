"""The bare alternative over HTTP: a low-level server of the MCP SDK on uvicorn, whose tools answer or spawn.

``python -m benchmarks.bare_http_server`` prints its URL on standard error.
"""

from __future__ import annotations

import socket
import sys

import anyio
import mcp_types as types
import uvicorn
from mcp.server.lowlevel.server import Server

from benchmarks.bare_server import SCHEMA

COMMAND = ["/bin/true"]


async def list_tools(_ctx: object, _params: object) -> types.ListToolsResult:
    names = ("known", "noop")
    return types.ListToolsResult(
        tools=[types.Tool(name=name, description="Nothing.", input_schema=SCHEMA) for name in names]
    )


async def call_tool(_ctx: object, params: types.CallToolRequestParams) -> types.CallToolResult:
    if params.name == "noop":
        await anyio.run_process(COMMAND)
    return types.CallToolResult(content=[types.TextContent(type="text", text="")])


def main() -> None:
    """Serve until killed."""
    server = Server(
        "bare",
        version="1",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda _name: SCHEMA,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stderr.write(f"Listening on http://127.0.0.1:{listener.getsockname()[1]}/mcp\n")
    sys.stderr.flush()
    config = uvicorn.Config(server.streamable_http_app(), log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
