"""The bare alternative: a low-level server of the MCP SDK with one tool, over stdio."""

import anyio
import mcp_types as types
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}


async def list_tools(_ctx: object, _params: object) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[types.Tool(name="noop", description="Nothing.", input_schema=SCHEMA)])


async def call_tool(_ctx: object, _params: object) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text="")])


async def main() -> None:
    server = Server("bare", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
