"""A server that runs only what is locked says at its start which tools it will refuse, and why."""

from __future__ import annotations

import os
from pathlib import Path

import anyio.to_thread
import pytest
import yaml

from praxis_mcp.execution.toolbox import MOST_REFUSED
from tests.kit.command_line import praxis
from tests.kit.contracts import write_tool
from tests.kit.until import until
from tests.kit.upstreams import ROOT, words
from tests.serving.http_server import running_http

pytestmark = pytest.mark.anyio


async def lock(directory: Path) -> None:
    def run() -> None:
        done = praxis("lock", "--config", "praxis.yaml", cwd=directory, env=dict(os.environ))
        assert done.returncode == 0, done.stderr

    await anyio.to_thread.run_sync(run)


async def test_what_is_refused_is_named_with_the_reason_in_a_line_each(tmp_path: Path) -> None:
    upstream = {"address": words("stdio"), "env": {"PYTHONPATH": str(ROOT)}, "include": ["echo"]}
    (tmp_path / "praxis.yaml").write_text(yaml.safe_dump({"tools": ["."], "upstreams": {"up": upstream}}))
    for name in ("changed", "kept"):
        write_tool(tmp_path, name, ["true"])
    await lock(tmp_path)
    async with running_http(tmp_path, "--http", "--locked", "--config", "praxis.yaml") as server:
        await until(lambda: any("every tool is as it was locked" in line for line in server.log))
        assert not any(" refused" in line for line in server.log)

    write_tool(tmp_path, "changed", ["false"])
    write_tool(tmp_path, "new", ["true"])
    write_tool(tmp_path, "boxed", ["true"], engine="docker", image="never-locked:1", network="none")
    file = tmp_path / "praxis.lock"
    values = yaml.safe_load(file.read_text())
    values["upstreams"]["up"]["echo"] = "0" * 64
    file.write_text(yaml.safe_dump(values))
    async with running_http(tmp_path, "--http", "--locked", "--config", "praxis.yaml") as server:
        await until(lambda: any("4 tools are refused." in line for line in server.log))
        for why in (
            "changed has another contract than the locked one",
            "new is not locked",
            "boxed is not locked",
            "up_echo is not what it was when it was locked",
        ):
            (line,) = (line for line in server.log if why in line)
            assert "WARNING" in line
        assert not any("kept " in line for line in server.log)


async def test_of_many_that_are_refused_some_are_named_and_all_are_counted(tmp_path: Path) -> None:
    (tmp_path / "praxis.yaml").write_text("tools: ['.']\n")
    await lock(tmp_path)
    for number in range(MOST_REFUSED + 5):
        write_tool(tmp_path, f"new{number}", ["true"])
    async with running_http(tmp_path, "--http", "--locked", "--config", "praxis.yaml") as server:
        await until(lambda: any(f"{MOST_REFUSED + 5} tools are refused." in line for line in server.log))
        assert len([line for line in server.log if "is not locked" in line]) == MOST_REFUSED
