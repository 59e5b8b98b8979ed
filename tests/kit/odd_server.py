"""A server without an SDK that says what no SDK would let it say, for tests: ``python -m tests.kit.odd_server``.

It has one tool, ``say``, whose arguments are what it does: ``before``, messages that it writes first, in which the text
TOKEN stands for the token for progress; then ``result`` or ``error``, its answer; or ``raw``, the line that it writes
instead, in which ID stands for the request's id. Without any of these it never answers. What it says of any resource,
and of its tool, holds the variable SECRET.
"""

import json
import os
import sys
from typing import Any

TOOL = {"name": "say", "description": "Says what it is told to.", "inputSchema": {"type": "object"}}
INFO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}, "resources": {}},
    "serverInfo": {"name": "odd", "version": "1"},
}
REFUSAL = {"error": {"code": -32601, "message": "Method not found"}}


def write(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        return {"result": INFO}
    if method == "tools/list":
        return {"result": {"tools": [{**TOOL, "description": TOOL["description"] + os.environ.get("SECRET", "")}]}}
    if method == "resources/read":
        secret = os.environ.get("SECRET", "")
        return {"result": {"contents": [{"uri": f"note://{secret}", "text": secret, "_meta": {"a": [secret]}}]}}
    if method != "tools/call":
        return REFUSAL
    told = params["arguments"]
    token = json.dumps(params.get("_meta", {}).get("progressToken"))
    for message in told.get("before", ()):
        write(json.loads(json.dumps(message).replace('"TOKEN"', token)))
    return {key: told[key] for key in ("result", "error") if key in told} or None


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        params = message.get("params") or {}
        if raw := (params.get("arguments") or {}).get("raw"):
            sys.stdout.write(raw.replace("ID", json.dumps(message["id"])) + "\n")
            sys.stdout.flush()
            continue
        found = answer(message["method"], params) if "id" in message else None
        if found is not None:
            write({"id": message["id"], **found})


if __name__ == "__main__":
    main()
