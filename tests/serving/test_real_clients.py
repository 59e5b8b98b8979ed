"""Clients that share no code with the server: the MCP Inspector, and the SDK of version 1."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.serving.clients import LIMIT, server_command, server_environment
from tests.support import mcp1
from tests.support.node import NodeProgram

CLIENT = Path(__file__).with_name("mcp1_client.py")


@pytest.mark.node
def test_the_inspector_lists_the_tools_and_calls_one(mcp_inspector: NodeProgram, sample_directory: Path) -> None:
    settings = [word for pair in server_environment().items() for word in ("-e", "=".join(pair))]
    server = [*settings, *server_command(str(sample_directory))]
    listed = mcp_inspector.run(*server, "--method", "tools/list", "--format", "json")
    assert listed.returncode == 0, listed.stderr
    tools = {tool["name"]: tool for tool in json.loads(listed.stdout)["result"]["tools"]}
    assert tools["echo"]["inputSchema"]["required"] == ["text"]
    called = mcp_inspector.run(
        *server, "--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=hi", "--format", "json"
    )
    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)["result"]["content"][0]["text"] == "hi\n"


def test_a_client_on_version_1_of_the_sdk_lists_and_calls(sample_directory: Path) -> None:
    try:
        python = mcp1.python()
    except mcp1.Mcp1Unavailable as exc:
        pytest.skip(str(exc))
    done = subprocess.run(
        [str(python), str(CLIENT), *server_command(str(sample_directory))],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=3 * LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    assert {"echo", "numbers", "stats"} <= set(saw["tools"])
    assert saw["echo"] == "from version 1\n"
    assert saw["numbers"] == {"result": [1, 2, 3]}
    assert saw["failed"][0] is True
    assert "exit code 3" in saw["failed"][1]
    assert saw["picture"] == "image"
    assert sorted(saw["files"]) == ["image", "resource_link", "text", "text"]
    assert "step 4" in saw["progress"]
