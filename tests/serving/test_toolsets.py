"""Toolsets: by command line, by address, by token; over every transport, in both eras."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import ToolListChangedNotification

from praxis_mcp.cli.tool_call import connected_upstreams
from praxis_mcp.errors import SettingsError
from praxis_mcp.federation.upstreams import Upstreams
from praxis_mcp.serving.access import hash_token
from praxis_mcp.settings.model import Settings, load_settings
from tests.kit.contracts import write_tool
from tests.kit.upstreams import ROOT, words
from tests.serving.clients import ERAS, LIMIT, Era, server_command, server_environment, text_of
from tests.serving.http_server import HttpServer, client_of, http_client, running_http

pytestmark = pytest.mark.anyio

TOOLSETS = {
    "data": {
        "tools": ["csv_*"],
        "tags": ["tables"],
        "exclude": ["*_delete"],
        "name": "data-tools",
        "title": "Data tools",
        "instructions": "Tables only.",
    },
    "ops": {"tools": ["deploy"]},
}
SECRET = "praxis_data"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    write_tool(directory, "csv_read", ["echo", "read"])
    write_tool(directory, "csv_delete", ["echo", "deleted"])
    write_tool(directory, "pivot", ["echo", "pivoted"], tags=["tables"])
    write_tool(directory, "deploy", ["echo", "deployed"])
    return directory


def environment(**more: str) -> dict[str, Any]:
    return {"PRAXIS_TOOLSETS": json.dumps(TOOLSETS), **more}


@asynccontextmanager
async def client_at(url: str, era: Era, **options: Any) -> AsyncIterator[Client]:
    line = sse_client(url) if "/sse" in url else streamable_http_client(url, max_sse_event_size=None)
    mode = "legacy" if era == "legacy" else "auto"
    async with Client(line, mode=mode, read_timeout_seconds=LIMIT, **options) as client:
        yield client


async def names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


async def check_data(client: Client) -> None:
    """The client sees the toolset `data` and nothing else."""
    assert await names(client) == ["csv_read", "pivot"]
    assert client.instructions == "Tables only."
    assert client.server_info is not None
    assert (client.server_info.name, client.server_info.title) == ("data-tools", "Data tools")
    assert text_of(await client.call_tool("csv_read", {})).startswith("read")
    for hidden in ("deploy", "csv_delete", "nothing"):
        with pytest.raises(MCPError, match=f'There is no tool "{hidden}"'):
            await client.call_tool(hidden, {})


@pytest.mark.parametrize("era", ERAS)
async def test_the_command_line_chooses_over_stdio(tools: Path, era: Era) -> None:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=server_command(str(tools), "--toolset", "data")[1:],
        env=server_environment(**environment()),
        cwd=tools,
    )
    mode = "legacy" if era == "legacy" else "auto"
    async with Client(parameters, mode=mode, read_timeout_seconds=LIMIT) as client:
        await check_data(client)


async def test_the_address_chooses_over_every_transport_of_http(tools: Path) -> None:
    async with running_http(tools, **environment()) as server:
        lines: tuple[tuple[Era, str], ...] = (
            ("legacy", f"{server.mcp}/data"),
            ("modern", f"{server.mcp}/data"),
            ("legacy", f"{server.sse}/data"),
        )
        for era, url in lines:
            async with client_at(url, era) as client:
                await check_data(client)
        for url in (server.mcp, server.sse):
            async with client_at(url, "legacy") as client:
                assert await names(client) == ["csv_delete", "csv_read", "deploy", "pivot"]
                assert client.server_info is not None
                assert client.server_info.name == "praxis-mcp"
        async with http_client() as http:
            for path in ("/mcp/nothing", "/sse/nothing"):
                answer = await http.get(server.base + path)
                assert (answer.status_code, answer.text) == (404, "There is no toolset nothing here.\n")


async def test_runs_of_tools_outside_are_not_shown(tools: Path) -> None:
    async with running_http(tools, **environment()) as server, client_at(server.mcp, "modern") as whole:
        for tool in ("deploy", "pivot"):
            await whole.call_tool(tool, {})
        listed = (await whole.list_resources()).resources
        assert len(listed) == 2
        async with client_at(f"{server.mcp}/data", "modern") as client:
            (own,) = (await client.list_resources()).resources
            assert own.name.startswith("pivot-")
            await client.read_resource(str(own.uri))
            other = next(item for item in listed if item.name.startswith("deploy-"))
            with pytest.raises(MCPError, match="not served here"):
                await client.read_resource(str(other.uri))


async def test_the_token_chooses_and_its_scopes_hold_as_well(tools: Path) -> None:
    tokens = {
        "data": {"sha256": hash_token(SECRET), "toolsets": ["data"]},
        "narrow": {"sha256": hash_token("praxis_narrow"), "toolsets": ["data"], "scopes": ["tools:csv_*"]},
        "all": {"sha256": hash_token("praxis_all")},
    }
    async with running_http(tools, http={"auth": {"tokens": tokens}}, **environment()) as server:
        async with client_of(server, SECRET) as client:
            await check_data(client)
        async with client_of(server, "praxis_narrow") as client:
            assert await names(client) == ["csv_read"]
            with pytest.raises(MCPError) as refused:
                await client.call_tool("pivot", {})
            assert "There is no tool" not in str(refused.value)  # it is there, and not theirs
        async with client_of(server, "praxis_all") as client:
            assert len(await names(client)) == 4
        async with http_client(SECRET) as http:
            assert (await http.get(f"{server.mcp}/ops")).status_code == 404
            assert (await http.get(f"{server.mcp}/data")).status_code != 404
        async with http_client() as http:
            assert (await http.get(f"{server.mcp}/nothing")).status_code == 401


async def test_what_the_server_serves_bounds_what_addresses_choose(tools: Path) -> None:
    async with running_http(tools, "--http", "--toolset", "ops", **environment()) as server:
        async with client_at(server.mcp, "modern") as client:
            assert await names(client) == ["deploy"]
        async with http_client() as http:
            assert (await http.get(f"{server.mcp}/data")).status_code == 404


class Changes:
    """What a client hears of its list of tools."""

    def __init__(self) -> None:
        self.count = 0
        self.heard = anyio.Event()

    async def __call__(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.count += 1
            self.heard.set()


async def test_a_client_is_notified_of_changes_of_its_own_tools_only(tools: Path) -> None:
    async with running_http(tools, **environment()) as server:
        data, ops = Changes(), Changes()
        async with (
            client_at(f"{server.mcp}/data", "legacy", message_handler=data) as first,
            client_at(f"{server.mcp}/ops", "legacy", message_handler=ops) as second,
        ):
            assert await names(first) == ["csv_read", "pivot"]
            assert await names(second) == ["deploy"]
            await _heard(server, lambda: write_tool(tools, "deploy", ["echo", "again"]), ops)
            assert data.count == 0
            await _heard(server, lambda: write_tool(tools, "csv_write", ["echo", "written"]), data)
            assert ops.count == 1
            assert await names(first) == ["csv_read", "csv_write", "pivot"]


async def _heard(server: HttpServer, change: Any, changes: Changes) -> None:
    change()
    with anyio.fail_after(LIMIT):
        await changes.heard.wait()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"toolsets": {"a": {}}}, "give at least one of tools, tags and upstreams"),
        ({"toolsets": {"a": {"upstreams": ["x"]}}}, "a names the upstream x, which is not among upstreams"),
        (
            {"server": {"toolsets": ["b"]}},
            "--toolset or server.toolsets names b, which is not one of them: write it under toolsets",
        ),
        (
            {"toolsets": {"a": {"tools": ["*"]}}, "server": {"toolsets": ["b"]}},
            "server.toolsets names b, which is not one of them; there are a",
        ),
        (
            {"http": {"auth": {"tokens": {"ci": {"sha256": "0" * 64, "toolsets": ["b"]}}}}},
            "http.auth.tokens.ci.toolsets names b",
        ),
    ],
)
def test_a_toolset_that_does_not_exist_is_an_error_that_says_who_names_it(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(flags=values)


@pytest.mark.anyio
async def test_a_disabled_tool_of_an_upstream_is_left_out_and_says_why() -> None:
    upstream = {"address": words("stdio"), "env": {"PYTHONPATH": str(ROOT)}}
    upstreams = Upstreams(Settings.model_validate({"disabled_tools": ["up_ec*"], "upstreams": {"up": upstream}}))
    async with connected_upstreams(upstreams):
        names = [entry.name for entry in upstreams.merged_with(())]
        assert names
        assert "up_echo" not in names
        (report,) = upstreams.reports()
        assert report.left_out == (("echo", "disabled_tools has up_ec*"),)
