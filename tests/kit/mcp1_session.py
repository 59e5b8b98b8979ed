# pyright: basic, reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
"""A client on the MCP SDK of version 1 whose session is lost in the middle; run by the tests in an environment of its
own, and imports nothing of ours.

Usage: ``python mcp1_session.py URL TOKEN TOOL``. Calls the tool, prints what it answered, waits for a line on standard
input, calls again by the same session, which must fail, and then by a new one. Prints a line of JSON each time.
"""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.exceptions import McpError


async def main() -> None:
    url, token, tool = sys.argv[1:]

    def connection():
        return streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"})

    async with connection() as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        print(json.dumps((await session.call_tool(tool, {})).content[0].text), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            lost = (await session.call_tool(tool, {})).content[0].text
        except McpError as exc:
            lost = [exc.error.code, exc.error.message]
        print(json.dumps(lost), flush=True)
    async with connection() as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        print(json.dumps((await session.call_tool(tool, {})).content[0].text), flush=True)


asyncio.run(main())
