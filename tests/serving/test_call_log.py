"""The log has one line for each call, at the level that a server logs at by itself."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from praxis_mcp.settings.model import Settings
from tests.kit.contracts import write_tool
from tests.kit.upstreams import ROOT, words
from tests.serving.clients import ERAS, LIMIT, Era
from tests.serving.credentials import ALL, ECHO_ONLY, Issuer, auth_settings
from tests.serving.http_server import HttpServer, http_client, running_http

pytestmark = pytest.mark.anyio

SECRET = "not-for-the-log"
CALLS = (
    # token, tool, arguments, and what the log says: caller, engine, outcome
    (ECHO_ONLY, "echo", {"text": SECRET}, ("token:echo", "local", "ok")),
    (ALL, "fail", {}, ("token:all", "local", "failed")),
    (ALL, "slow", {}, ("token:all", "local", "timed_out")),
    (ALL, "echo", {"text": 5, SECRET: SECRET}, ("token:all", "", "bad_arguments")),
    (ALL, "missing", {}, ("token:all", "local", "error")),
    (ALL, "up_echo", {"text": SECRET}, ("token:all", "upstream:up", "ok")),
    (ALL, "pinned_echo", {}, ("token:all", "", "held_back")),
    (ALL, "no such\ntool outcome=ok", {}, ("token:all", "", "unknown_tool")),
    (ECHO_ONLY, "fail", {}, ("token:echo", "", "forbidden")),
)


@pytest.mark.parametrize("era", ERAS)
async def test_each_call_leaves_one_line_that_says_what_became_of_it(tmp_path: Path, era: Era) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    write_tool(tools, "echo", ["cat"], parameters={"text": {"type": "string", "bind": "stdin"}})
    write_tool(tools, "fail", ["false"])
    write_tool(tools, "slow", ["sleep", "60"], timeout=0.2)
    write_tool(tools, "missing", ["praxis-no-such-command"])
    address = {"address": words("stdio"), "env": {"PYTHONPATH": str(ROOT)}}
    upstreams = {"up": address, "pinned": {**address, "pin": True}}
    async with running_http(
        tools,
        "--http",
        http={"auth": auth_settings(Issuer(), tmp_path)},
        PRAXIS_UPSTREAMS=json.dumps(upstreams),
        PRAXIS_LOG_LEVEL=Settings().log_level,
        PRAXIS_LOG_FORMAT="json",
        PRAXIS_THAT_IS_NO_SETTING="1",
    ) as server:
        for token, tool, arguments, _ in CALLS:
            await call(server, token, era, tool, arguments)
    entries = [json.loads(line) for line in server.log]
    for said in ("Listening on ", "the environment variable PRAXIS_THAT_IS_NO_SETTING "):
        assert any(entry["message"].startswith(said) for entry in entries), "every line is an object"
    found = [entry for entry in entries if entry.get("event") == "call"]
    assert [(entry["tool"], entry["caller"], entry["engine"], entry["outcome"]) for entry in found] == [
        (tool.replace("\n", "\\n"), *expected) for _, tool, _, expected in CALLS
    ]
    for entry in found:
        assert entry["level"] == "INFO"
        assert entry["ms"] >= 0
        assert bool(entry["run"]) == bool(entry["engine"] or entry["outcome"] == "bad_arguments")
        assert entry["message"].count(" outcome=") == 1 + entry["tool"].count(" outcome=")
    assert SECRET not in "\n".join(server.log)


async def call(server: HttpServer, token: str, era: Era, tool: str, arguments: dict[str, Any]) -> None:
    async with (
        http_client(token) as http,
        Client(
            streamable_http_client(server.mcp, http_client=http),
            mode="legacy" if era == "legacy" else "auto",
            read_timeout_seconds=LIMIT,
        ) as client,
    ):
        with anyio.fail_after(LIMIT), suppress(MCPError):
            await client.call_tool(tool, arguments)
