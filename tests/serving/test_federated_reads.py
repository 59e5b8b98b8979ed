"""What a worker that is a server like this one keeps of its runs, read through one or two others."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from tests.kit.until import until
from tests.serving.clients import ERAS, LIMIT, Era, memory_client, open_server, server_command, settings_for, text_of
from tests.serving.sample_tools import python, write_tool

pytestmark = pytest.mark.anyio

STARTING = 60.0
"""Seconds that a chain of servers may take to start and to list what the last one has."""
LINES = 30_000
TEXT = "".join(f"line {number}\n" for number in range(LINES))
BINARY = bytes(range(256)) * 2400


def server_of(directory: Path, **settings: Any) -> list[str]:
    """The command of a server of the tools in a directory."""
    (directory / "praxis.json").write_text(json.dumps({**settings, "root": str(directory)}))
    return server_command(str(directory), "--config", str(directory / "praxis.json"))


@asynccontextmanager
async def through(directory: Path, hops: int, era: Era) -> AsyncIterator[Client]:
    """A client on a server that republishes a worker's tools, through as many servers as that."""
    worker = directory / "worker"
    worker.mkdir()
    write_tool(worker, "long", python(f"print(''.join(f'line {{n}}\\n' for n in range({LINES})), end='')"))
    write_tool(worker, "binary", python("import sys; sys.stdout.buffer.write(bytes(range(256)) * 2400)"))
    write_tool(worker, "failing", python("import sys; print('x' * 9000, file=sys.stderr); sys.exit(3)"))
    address = server_of(worker)
    for number in range(1, hops):
        between = directory / f"between{number}"
        between.mkdir()
        address = server_of(between, upstreams={"w": {"address": address, "prefix": ""}})
    here = directory / "here"
    here.mkdir()
    upstreams = {"w": {"address": address, "prefix": ""}}
    async with (
        open_server(settings_for(here, upstreams=upstreams)) as (toolbox, server),
        memory_client(server, era) as client,
    ):
        await until(lambda: toolbox.upstreams.served("long"), within=STARTING)
        yield client


async def contents(client: Client, uri: str) -> list[Any]:
    with anyio.fail_after(LIMIT):
        return list((await client.read_resource(uri)).contents)


async def call(client: Client, name: str) -> Any:
    with anyio.fail_after(LIMIT):
        return await client.call_tool(name, {})


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("hops", [1, 2])
async def test_what_was_cut_of_a_text_can_be_read_to_its_end_where_the_text_says(
    tmp_path: Path, hops: int, era: Era
) -> None:
    async with through(tmp_path, hops, era) as client:
        result = await call(client, "long")
        assert not result.is_error
        found = re.search(r"the whole is at (\S+)", text_of(result))
        assert found is not None
        assert [block.uri for block in result.content if block.type == "resource_link"] == [found[1]]
        read, uri = "", found[1]
        while uri:
            part, *rest = await contents(client, uri)
            read += part.text
            uri = re.search(r"read on at (\S+)", rest[0].text)[1] if rest else ""  # pyright: ignore
            assert not rest or rest[0].uri == uri
        assert read == TEXT
        (part, _) = await contents(client, f"{found[1]}?offset=5&limit=10")
        assert part.text == TEXT[5:15]
        with pytest.raises(MCPError, match="offset is a number"):
            await contents(client, f"{found[1]}?offset=x")


async def test_what_a_worker_only_links_can_be_read_from_any_offset(tmp_path: Path) -> None:
    async with through(tmp_path, 1, "modern") as client:
        result = await call(client, "binary")
        (uri,) = (block.uri for block in result.content if block.type == "resource_link")
        assert uri in text_of(result)
        whole, _ = await contents(client, uri)
        (end,) = await contents(client, f"{uri}?offset={len(BINARY) - 4}")
        assert end.blob != whole.blob
        assert end.blob == "/P3+/w=="
        for other in ("?offset=252&limit=4", "%3Foffset=252&limit=4", "%3Foffset%3D252%26limit%3D4"):
            assert (await contents(client, uri + other))[0].blob == end.blob


async def test_the_whole_error_output_and_the_summary_of_a_workers_run_can_be_read(tmp_path: Path) -> None:
    async with through(tmp_path, 1, "modern") as client:
        result = await call(client, "failing")
        assert result.is_error
        (uri,) = (block.uri for block in result.content if block.type == "resource_link")
        (errors,) = await contents(client, uri)
        assert errors.text == "x" * 9000 + "\n"
        (summary,) = await contents(client, uri.removesuffix("%2Fstderr"))
        assert json.loads(summary.text)["stderr"] == uri, "and names the rest by addresses that can be read here"
        with pytest.raises(MCPError, match="No result of a call of yours"):
            await contents(client, "praxis://upstreams/w/praxis%3A%2F%2Fruns%2Fanother%2Fstdout")
