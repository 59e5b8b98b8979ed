"""Clients that share no code with the server: the MCP Inspector, and the SDKs of Python and TypeScript."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from tests.kit import mcp1, node, requirements
from tests.kit.environments import PackageUnavailable
from tests.kit.node import NodeProgram
from tests.serving.clients import LIMIT, server_command, server_environment
from tests.serving.http_server import HttpServer, running_http

CLIENT = mcp1.SCRIPTS / "mcp1_client.py"
NodePrograms = Callable[[Callable[[], NodeProgram]], NodeProgram]


async def to_thread(run: Callable[..., Any], *arguments: str | list[str]) -> Any:
    return await anyio.to_thread.run_sync(partial(run, *arguments))


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


@pytest.fixture(scope="module")
async def network(anyio_backend: str, sample_directory: Path) -> AsyncIterator[HttpServer]:
    async with running_http(sample_directory) as server:
        yield server


@pytest.mark.anyio
@pytest.mark.node
async def test_the_inspector_calls_a_tool_over_http(mcp_inspector: NodeProgram, network: HttpServer) -> None:
    words = ("--transport", "http", "--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=hi")
    called = await to_thread(mcp_inspector.run, network.mcp, *words, "--format", "json")
    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)["result"]["content"][0]["text"] == "hi\n"


@pytest.mark.anyio
@pytest.mark.node
@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_a_client_on_version_1_of_the_typescript_sdk_calls_cancels_and_gets_progress(
    node_programs: NodePrograms, network: HttpServer, kind: str
) -> None:
    program = node_programs(node.typescript_v1)
    done = await to_thread(program.run, network.sse if kind == "sse" else network.mcp, kind)
    check_typescript(done, numbers={"result": [1, 2, 3]})


@pytest.mark.anyio
@pytest.mark.node
async def test_a_client_on_version_2_of_the_typescript_sdk_speaks_2026(
    node_programs: NodePrograms, network: HttpServer
) -> None:
    done = await to_thread(node_programs(node.typescript_v2).run, network.mcp)
    assert check_typescript(done, numbers=[1, 2, 3])["version"] == "2026-07-28"


def check_typescript(done: subprocess.CompletedProcess[str], *, numbers: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    assert {"echo", "numbers", "stats"} <= set(saw["tools"])
    assert (saw["echo"], saw["numbers"], saw["failed"]) == ("from TypeScript\n", numbers, True)
    assert saw["cancelled"] == "cancelled"
    assert "step 4" in saw["progress"]
    return saw


@pytest.mark.anyio
@pytest.mark.mcp1
@pytest.mark.parametrize("line", ["stdio", "http", "sse"])
async def test_a_client_on_version_1_of_the_sdk_lists_and_calls(
    sample_directory: Path, network: HttpServer, line: str
) -> None:
    try:
        python = await to_thread(mcp1.python)
    except PackageUnavailable as exc:
        requirements.give_up("mcp1", str(exc))
        raise
    where = {"stdio": server_command(str(sample_directory)), "http": [network.mcp], "sse": [network.sse]}[line]
    done = await to_thread(
        partial(subprocess.run, env=server_environment(), capture_output=True, text=True, timeout=3 * LIMIT),
        [str(python), str(CLIENT), *where],
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
