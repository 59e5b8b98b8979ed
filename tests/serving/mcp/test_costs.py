"""What tools cost an agent: as much as a client receives."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from praxis_mcp.serving.mcp.costs import Cost, costs_of
from tests.kit.contracts import write_tool
from tests.serving.clients import LIMIT, memory_client, open_server, settings_for

pytestmark = pytest.mark.anyio

MANY = 3


async def test_the_bytes_are_those_that_a_client_gets_and_the_tokens_those_that_its_model_reads(tmp_path: Path) -> None:
    for number in range(MANY):
        schema = {"type": "object", "properties": {"x": {"type": "string"}}}
        extra = {"output": "json", "output_schema": schema} if number else {}
        write_tool(tmp_path, f"tool_{number}", ["true"], description="Größer werden. " * (number + 1), **extra)
    # A page at a time, which the costs are not bounded by.
    async with (
        open_server(settings_for(tmp_path, server={"page_size": MANY})) as (toolbox, server),
        memory_client(server, "legacy") as client,
    ):
        with anyio.fail_after(LIMIT):
            tools = (await client.list_tools()).tools
        one_page = toolbox.settings.model_copy(
            update={"server": toolbox.settings.server.model_copy(update={"page_size": 1})}
        )
        costs = costs_of(toolbox.catalog.entries(), one_page)
    assert len(costs) == MANY
    for tool in tools:
        assert costs[tool.name].bytes == len(tool.model_dump_json(by_alias=True, exclude_none=True).encode())
        seen = {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema}
        size = len(json.dumps(seen, ensure_ascii=False, separators=(",", ":")).encode())
        assert size <= 4 * costs[tool.name].tokens < size + 4


def test_costs_add_up() -> None:
    assert sum([Cost(1, 2), Cost(3, 4)], Cost()) == Cost(4, 6)
