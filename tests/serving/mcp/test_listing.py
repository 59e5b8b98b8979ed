"""tools/list, whatever the transport and the era."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from praxis_mcp.contracts.catalog.catalog import CatalogEntry, Traits
from praxis_mcp.contracts.model import Annotations
from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.server import PraxisServer
from praxis_mcp.serving.mcp.tools import ToolLister, tool_annotations
from praxis_mcp.settings.model import Settings
from tests.kit.contracts import write_tool
from tests.serving.clients import ERAS, LIMIT, Era, Peer, memory_client, open_server, settings_for

pytestmark = pytest.mark.anyio


async def tools_of(peer: Peer) -> dict:
    with anyio.fail_after(LIMIT):
        return {tool.name: tool for tool in (await peer.client.list_tools()).tools}


async def test_tools_are_sorted_and_say_what_they_take(peer: Peer) -> None:
    tools = await tools_of(peer)
    assert list(tools) == sorted(tools)
    echo = tools["echo"]
    assert (echo.title, echo.description) == ("Echo", "Test tool echo.")
    assert echo.input_schema["type"] == "object"
    assert echo.input_schema["properties"]["text"]["description"] == "what to say"
    assert echo.input_schema["required"] == ["text"]


async def test_annotations_are_the_written_ones_or_proven_by_the_sandbox(peer: Peer) -> None:
    tools = await tools_of(peer)
    written = tools["echo"].annotations
    assert (written.read_only_hint, written.open_world_hint, written.idempotent_hint) == (True, False, True)
    proven = tools["boxed"].annotations
    assert (proven.read_only_hint, proven.destructive_hint, proven.open_world_hint) == (True, False, False)
    assert tools["fail"].annotations is None


async def test_an_output_schema_that_is_not_an_object_reaches_older_clients_wrapped(peer: Peer) -> None:
    tools = await tools_of(peer)
    assert tools["stats"].output_schema["properties"]["words"] == {"type": "integer"}
    numbers = tools["numbers"].output_schema
    if peer.era == "modern":
        assert numbers["type"] == "array"
    else:
        assert numbers["type"] == "object"
        assert numbers["properties"]["result"]["items"] == {"$ref": "#/properties/result/$defs/n"}


async def test_a_cursor_of_someone_else_is_refused_and_the_server_lives_on(peer: Peer) -> None:
    for cursor in ("nonsense!", "bm9uc2Vuc2U", ""):
        with anyio.fail_after(LIMIT), pytest.raises(MCPError) as caught:
            await peer.client.list_tools(cursor=cursor, cache_mode="bypass")
        assert caught.value.code == INVALID_PARAMS
    assert "echo" in await tools_of(peer)


async def test_clients_hear_that_tools_may_change_and_how_long_a_list_is_fresh(peer: Peer) -> None:
    capabilities = peer.client.server_capabilities
    assert capabilities.tools is not None
    assert capabilities.tools.list_changed is True
    assert capabilities.resources is not None
    assert not capabilities.resources.list_changed
    assert "praxis://runs/" in (peer.client.instructions or "")
    if peer.era == "modern":
        assert (await peer.client.list_tools(cache_mode="bypass")).ttl_ms > 0


@pytest.mark.parametrize("era", ERAS)
async def test_fifty_pages_name_every_tool_once_though_one_vanishes_on_the_way(era: Era, tmp_path) -> None:
    names = [f"tool_{number:02}" for number in range(50)]
    paths = {name: write_tool(tmp_path, name, ["true"]) for name in names}
    settings = settings_for(tmp_path, server={"page_size": 1}, reload=False)
    async with open_server(settings) as (toolbox, server), memory_client(server, era) as client:
        seen: list[str] = []
        cursor = None
        with anyio.fail_after(LIMIT):
            while True:
                page = await client.list_tools(cursor=cursor, cache_mode="bypass")
                seen += [tool.name for tool in page.tools]
                cursor = page.next_cursor
                if cursor is None:
                    break
                if len(seen) == 10:
                    paths["tool_09"].unlink()
                    await toolbox.catalog.load()
    assert seen == names


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_is_greeted_before_the_catalog_is_scanned(era: Era, tmp_path) -> None:
    write_tool(tmp_path, "late", ["true"])
    async with open_toolbox(settings_for(tmp_path)) as opened:
        # The same parts, with a scan that has not begun.
        toolbox = Toolbox(opened.settings, opened.catalog, opened.engines, opened.records, opened.runner)
        async with PraxisServer.open(toolbox) as server, memory_client(server, era) as client:
            with anyio.move_on_after(0.2) as scope:
                await client.list_tools()
            assert scope.cancelled_caught
            await toolbox.scan()
            with anyio.fail_after(LIMIT):
                assert [tool.name for tool in (await client.list_tools()).tools] == ["late"]


def test_a_tool_that_would_spoil_the_list_for_older_clients_is_left_out_of_it(tmp_path: Path) -> None:
    def entry(name: str, schema: dict[str, Any]) -> CatalogEntry:
        return CatalogEntry(name, None, None, schema, None, Annotations(), Traits("local"), tmp_path / name, "")

    entries = (entry("bad", {"type": "array"}), entry("good", {"type": "object", "properties": {}}))
    for version in ("2024-11-05", "2025-11-25"):
        page = ToolLister(Settings()).page(entries, None, Dialect(version))
        assert [tool.name for tool in page.tools] == ["good"]


@pytest.mark.parametrize(
    ("traits", "sandbox", "read_only", "open_world"),
    [
        (Traits("dagger", image="x", network="none"), "auto", True, False),
        (Traits("dagger", image="x", network="none", writable_mounts=True), "auto", None, False),
        (Traits("dagger", image="x", network="bridge"), "auto", None, None),
        (Traits("docker", image="x", network="none", privileged=True), "auto", None, None),
        (Traits("local", network="none"), "auto", None, None),
        (Traits("local", network="none"), "require", True, False),
        (Traits("remote-mcp"), "require", None, None),
    ],
)
def test_only_what_the_sandbox_enforces_is_proven(
    traits: Traits, sandbox: str, read_only: bool | None, open_world: bool | None, tmp_path: Path
) -> None:
    entry = CatalogEntry("t", None, None, {"type": "object"}, None, Annotations(), traits, tmp_path, "")
    shown = tool_annotations(entry, Settings.model_validate({"engines": {"local": {"sandbox": sandbox}}}))
    hints = (shown.read_only_hint, shown.open_world_hint) if shown else (None, None)
    assert hints == (read_only, open_world)
