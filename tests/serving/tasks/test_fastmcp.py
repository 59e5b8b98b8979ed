"""FastMCP's client, which speaks the tasks extension and shares no code of ours: calls that become tasks, and tasks
that another client takes up after a restart."""

from __future__ import annotations

import json
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from tests.kit import fastmcp4, requirements
from tests.kit.environments import PackageUnavailable
from tests.kit.until import until
from tests.serving.clients import LIMIT, server_command, server_environment
from tests.serving.http_server import running_http

pytestmark = [pytest.mark.anyio, pytest.mark.fastmcp]


async def run(server: str | list[str], what: str, tool: str, arguments: Any, token: str = "") -> Any:
    """What FastMCP's client printed."""
    try:
        python = await anyio.to_thread.run_sync(fastmcp4.python)
    except PackageUnavailable as exc:
        requirements.give_up("fastmcp", str(exc))
        raise
    environment = {"TOKEN": token} if token else {}
    words = [server if isinstance(server, str) else json.dumps(server), what, tool, json.dumps(arguments)]
    done = await anyio.to_thread.run_sync(
        partial(
            subprocess.run, env=server_environment(**environment), capture_output=True, text=True, timeout=3 * LIMIT
        ),
        [str(python), str(fastmcp4.SCRIPT), *words],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", ["stdio", "http"])
async def test_a_call_that_becomes_a_task_has_its_result(tools: Path, line: str) -> None:
    if line == "stdio":
        saw = await run(server_command(str(tools)), "call", "leaves", {})
    else:
        async with running_http(tools, "--http") as server:
            saw = await run(server.mcp, "call", "leaves", {})
    assert saw["structured"]["sum"] == 3
    assert saw["links"][-1].endswith("/artifacts/report.txt")


async def test_a_task_outlives_its_client_and_its_server(tools: Path, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    place: dict[str, Any] = {"PRAXIS_RECORDS__DIRECTORY": str(tmp_path / "records")}
    async with running_http(tools, "--http", **place) as server:
        finished = await run(server.mcp, "start", "leaves", {})
        begun = await run(server.mcp, "start", "waits_again", {"gate": gate})
        other = await run(server.mcp, "start", "waits", {"gate": str(tmp_path / "never")})
        assert (await run(server.mcp, "cancel", "waits", other)) == {"status": "cancelled"}
        assert (await run(server.mcp, "result", "leaves", finished))["structured"]["sum"] == 3
        await until(Path(f"{gate}.begun").exists)
        server.signal(signal.SIGKILL)
        await server.exit_code()
    Path(gate).touch()
    async with running_http(tools, "--http", **place) as server:
        assert (await run(server.mcp, "result", "leaves", finished))["structured"]["sum"] == 3
        assert (await run(server.mcp, "result", "waits_again", begun))["texts"] == ["through\n"]
