"""Images are pulled ahead of calls, but not before the client has its tools."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from praxis_mcp.engines.base import StatusListener
from praxis_mcp.execution.runner import ToolRunner
from praxis_mcp.execution.toolbox import open_toolbox
from praxis_mcp.plans.model import Blueprint
from praxis_mcp.serving.mcp.server import PraxisServer
from tests.execution.engines import AnsweringEngine, Engines
from tests.serving.clients import LIMIT, memory_client, settings_for

pytestmark = pytest.mark.anyio


class PullingEngine(AnsweringEngine):
    """Notes what it is asked to prepare."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[str | None] = []
        self.asked = anyio.Event()

    async def prepare(self, blueprint: Blueprint, on_status: StatusListener | None = None) -> None:
        self.prepared.append(blueprint.image)
        self.asked.set()


async def test_pulling_begins_once_the_tools_were_listed(tmp_path: Path) -> None:
    contract = {"name": "boxed", "engine": "docker", "image": "busybox", "command": ["true"]}
    (tmp_path / "contract.json").write_text(json.dumps(contract))
    engine = PullingEngine()
    async with open_toolbox(settings_for(tmp_path, prefetch=True)) as opened:
        engines = Engines(docker=engine)
        runner = ToolRunner(opened.catalog, engines, opened.records, opened.settings)
        toolbox = replace(opened, engines=engines, runner=runner)
        async with PraxisServer.open(toolbox) as server, memory_client(server, "legacy") as client:
            await anyio.wait_all_tasks_blocked()
            assert engine.prepared == []
            await client.list_tools()
            with anyio.fail_after(LIMIT):
                await engine.asked.wait()
    assert engine.prepared == ["busybox"]
