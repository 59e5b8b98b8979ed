"""Clients that never ask for a second page of tools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from praxis_mcp.support.logs import logger
from tests.kit.contracts import write_tool
from tests.serving.clients import ERAS, LIMIT, Era, memory_client, open_server, settings_for

pytestmark = pytest.mark.anyio

MISSED = "did not ask for the next page"


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def write_tools(directory: Path, count: int) -> None:
    for number in range(count):
        write_tool(directory, f"tool_{number:03}", ["true"])


@pytest.mark.parametrize("era", ERAS)
async def test_hundreds_of_tools_are_one_page(era: Era, tmp_path: Path, log: list[str]) -> None:
    write_tools(tmp_path, 150)
    async with open_server(settings_for(tmp_path)) as (_, server), memory_client(server, era) as client:
        with anyio.fail_after(LIMIT):
            page = await client.list_tools()
            await client.call_tool("tool_000", {})
    assert (len(page.tools), page.next_cursor) == (150, None)
    assert not [line for line in log if MISSED in line]


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_calls_without_the_next_page_is_named_in_the_log_once(
    era: Era, tmp_path: Path, log: list[str]
) -> None:
    write_tools(tmp_path, 5)
    settings = settings_for(tmp_path, server={"page_size": 2})
    async with open_server(settings) as (_, server), memory_client(server, era) as client:
        with anyio.fail_after(LIMIT):
            first = await client.list_tools(cache_mode="bypass")
            assert not [line for line in log if MISSED in line], "it may ask yet"
            await client.list_tools(cursor=first.next_cursor, cache_mode="bypass")
            await client.call_tool("tool_000", {})
            await client.list_tools(cache_mode="bypass")
            await client.call_tool("tool_000", {})
    said = [line for line in log if MISSED in line]
    assert len(said) == 1
    assert "took 4 tools" in said[0]
    assert "server.page_size" in said[0]
    assert "the client mcp" in said[0]


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_lists_again_without_the_next_page_is_named_too(
    era: Era, tmp_path: Path, log: list[str]
) -> None:
    write_tools(tmp_path, 5)
    settings = settings_for(tmp_path, server={"page_size": 2})
    async with open_server(settings) as (_, server), memory_client(server, era) as client:
        with anyio.fail_after(LIMIT):
            await client.list_tools(cache_mode="bypass")
            await client.list_tools(cache_mode="bypass")
    assert any("took 2 tools" in line for line in log)


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_reads_all_pages_is_not_named(era: Era, tmp_path: Path, log: list[str]) -> None:
    write_tools(tmp_path, 5)
    settings = settings_for(tmp_path, server={"page_size": 2})
    async with open_server(settings) as (_, server), memory_client(server, era) as client:
        with anyio.fail_after(LIMIT):
            cursor = None
            while (cursor := (await client.list_tools(cursor=cursor, cache_mode="bypass")).next_cursor) is not None:
                pass
            await client.call_tool("tool_000", {})
    assert not [line for line in log if MISSED in line]
