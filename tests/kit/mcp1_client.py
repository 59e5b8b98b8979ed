# pyright: basic, reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
"""A client on the MCP SDK of version 1; run by the tests in an environment of its own, and imports nothing of ours.

Usage: ``python mcp1_client.py SERVER_COMMAND…``, or a URL, whose path ends in ``/sse`` or not; prints what it saw as
JSON.
"""

import asyncio
import json
import os
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client


def connection():
    if not sys.argv[1].startswith("http"):
        return stdio_client(StdioServerParameters(command=sys.argv[1], args=sys.argv[2:], env=dict(os.environ)))
    return sse_client(sys.argv[1]) if sys.argv[1].endswith("/sse") else streamablehttp_client(sys.argv[1])


async def main() -> None:
    messages: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message or "")

    async with (
        connection() as streams,
        ClientSession(*streams[:2]) as session,
    ):
        await session.initialize()
        tools = (await session.list_tools()).tools
        echo = await session.call_tool("echo", {"text": "from version 1"})
        numbers = await session.call_tool("numbers", {})
        failed = await session.call_tool("fail", {})
        picture = await session.call_tool("picture", {})
        files = await session.call_tool("files", {})
        await session.call_tool("chatty", {}, progress_callback=on_progress)
        print(
            json.dumps(
                {
                    "tools": [tool.name for tool in tools],
                    "echo": echo.content[0].text,
                    "numbers": numbers.structuredContent,
                    "failed": [failed.isError, failed.content[0].text],
                    "picture": picture.content[0].type,
                    "files": [block.type for block in files.content],
                    "progress": messages,
                }
            )
        )


asyncio.run(main())
