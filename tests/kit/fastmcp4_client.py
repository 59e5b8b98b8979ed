# pyright: basic, reportMissingImports=false
"""A client on FastMCP 4; run by the tests in an environment of its own, and imports nothing of ours.

Usage: ``python fastmcp4_client.py SERVER WHAT TOOL ARGUMENTS``. SERVER is a URL, or JSON of a command's words; WHAT is
``call`` (the call, whatever it becomes), ``start`` (a task, whose handle is printed), or ``status``, ``update``,
``result`` or ``cancel`` (of the task whose handle ARGUMENTS is). The variable TOKEN has the token, if any. Prints JSON.
"""

import asyncio
import json
import os
import sys

from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from fastmcp_tasks.client import ToolTask, _send_update, call_tool_task
from fastmcp_tasks.client_models import ClientCreateTaskResult


def shown(result) -> dict:
    return {
        "texts": [block.text for block in result.content if block.type == "text"],
        "structured": result.structured_content,
        "links": [str(block.uri) for block in result.content if block.type == "resource_link"],
    }


async def main() -> None:
    server, what, tool, text = sys.argv[1:]
    arguments = json.loads(text)
    words = json.loads(server) if server.startswith("[") else []
    transport = StdioTransport(command=words[0], args=words[1:], env=dict(os.environ)) if words else server
    async with Client(transport, auth=os.environ.get("TOKEN")) as client:
        if what == "call":
            print(json.dumps(shown(await client.call_tool(tool, arguments))))
        elif what == "start":
            task = await call_tool_task(client, tool, arguments)
            print(task.create_result.model_dump_json(by_alias=True))
        else:
            task = ToolTask(client, tool, ClientCreateTaskResult.model_validate(arguments))
            if what == "update":
                await _send_update(client.session, task.task_id, {"asked": {"action": "accept", "content": {}}})
            if what in ("status", "update"):
                print(json.dumps({"status": (await task.status()).status}))
            elif what == "cancel":
                await task.cancel()
                print(json.dumps({"status": (await task.wait(timeout=60)).status}))
            else:
                print(json.dumps(shown(await task.result())))


asyncio.run(main())
