# pyright: basic, reportAttributeAccessIssue=false
"""What version 1 of the MCP SDK makes of tools; run by the tests in an environment of its own.

Reads a JSON array of tools from standard input and prints, by name, why a client would lose its whole list for one.
"""

import json
import sys

from mcp.types import ListToolsResult

refused = {}
for tool in json.load(sys.stdin):
    try:
        ListToolsResult.model_validate({"tools": [tool]})
    except ValueError as exc:
        refused[tool["name"]] = str(exc)
print(json.dumps(refused))
