"""The tools by which a model follows tasks whose client does not speak the extension."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from tests.kit.tasks import TasksExtension, start
from tests.kit.until import until
from tests.serving.clients import LINES, Era, Peer, memory_client, open_server, settings_for
from tests.serving.sample_tools import python, write_tool
from tests.serving.tasks.tools import connect_keeping

pytestmark = pytest.mark.anyio
NAMES = ["runs_cancel", "runs_result", "runs_status"]


@pytest.fixture(scope="module", params=LINES, ids=lambda pair: "-".join(pair))
async def peer(request: pytest.FixtureRequest, anyio_backend: str, tools: Path) -> AsyncIterator[Peer]:
    transport, era = request.param
    async with connect_keeping(transport, era, tools, tasks={"tools": True}) as connected:
        yield Peer(connected, transport, era)


def text_of(result: Any) -> str:
    return result.content[0].text


async def begin(client: Client, tool: str, **arguments: str) -> str:
    """The id of the task that a call became."""
    answer = text_of(await client.call_tool(tool, arguments))
    found = re.search(r"task ([0-9a-f]{32})", answer)
    assert found is not None, answer
    return found[1]


async def test_a_call_becomes_a_task_that_a_model_follows_to_its_result(peer: Peer, tmp_path: Path) -> None:
    client, gate = peer.client, tmp_path / "gate"
    task = await begin(client, "waits", gate=str(gate))
    status: Any = (await client.call_tool("runs_status", {"task": task})).structured_content
    assert (status["tool"], status["status"], status["task"]) == ("waits", "working", task)
    assert text_of(await client.call_tool("runs_result", {"task": task, "wait": 0})).startswith("It has not ended yet")
    gate.touch()
    result = await client.call_tool("runs_result", {"task": task, "wait": 50})
    assert text_of(result) == "through\n"
    assert not result.is_error
    status = (await client.call_tool("runs_status", {"task": task})).structured_content
    assert status["status"] == "completed"


async def test_a_result_has_structured_content_files_and_links(peer: Peer) -> None:
    await peer.client.list_tools()
    task = await begin(peer.client, "leaves")
    result: Any = await peer.client.call_tool("runs_result", {"task": task, "wait": 50})
    assert result.structured_content["sum"] == 3
    links = [block for block in result.content if block.type == "resource_link"]
    read: Any = await peer.client.read_resource(links[-1].uri)
    assert read.contents[0].text == "the whole report"


async def test_a_task_is_cancelled(peer: Peer, tmp_path: Path) -> None:
    client = peer.client
    task = await begin(client, "waits", gate=str(tmp_path / "gate"))
    assert text_of(await client.call_tool("runs_cancel", {"task": task})) == "It is being cancelled."

    async def is_cancelled() -> bool:
        result = await client.call_tool("runs_result", {"task": task, "wait": 1})
        return result.is_error and "cancelled" in text_of(result)

    await until(is_cancelled)
    assert text_of(await client.call_tool("runs_cancel", {"task": task})) == "It has ended already: cancelled."


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("runs_status", {}, "task is missing"),
        ("runs_status", {"task": "0" * 32, "wait": 1}, "has no parameter wait"),
        ("runs_result", {"task": "0" * 32, "wait": 51}, "from 0 to 50"),
        ("runs_result", {"task": "0" * 32}, "There is no such task"),
        ("runs_cancel", {"task": "0" * 32}, "There is no such task"),
    ],
)
async def test_what_cannot_be_answered_says_why(peer: Peer, tool: str, arguments: dict[str, Any], said: str) -> None:
    result = await peer.client.call_tool(tool, arguments)
    assert result.is_error
    assert said in text_of(result)


async def test_they_are_listed_in_order_among_the_others(peer: Peer) -> None:
    listed = [tool.name for tool in (await peer.client.list_tools()).tools]
    assert listed == sorted(listed)
    assert set(NAMES) <= set(listed)


async def test_a_contract_that_may_be_a_call_is_one(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    assert text_of(await peer.client.call_tool("either", {"gate": str(tmp_path / "gate")})) == "through\n"


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_they_are_not_there_unless_the_settings_say_so(tools: Path, era: Era) -> None:
    async with connect_keeping("memory", era, tools) as client:
        assert not {tool.name for tool in (await client.list_tools()).tools} & set(NAMES)
        with pytest.raises(MCPError):
            await client.call_tool("runs_status", {"task": "0" * 32})


async def test_a_client_that_speaks_the_extension_gets_a_task_of_its_own_kind(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    async with connect_keeping(
        "memory", "modern", tools, tasks={"tools": True}, extensions=[TasksExtension()]
    ) as client:
        assert (await start(client, "waits", {"gate": str(tmp_path / "gate")})).task_id


async def test_a_tool_of_ones_own_of_the_same_name_stays(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    write_tool(tmp_path / "tools", "runs_status", python("print('mine')"))
    settings = settings_for(tmp_path / "tools", records={"directory": str(tmp_path / "records")}, tasks={"tools": True})
    async with open_server(settings) as (_, server), memory_client(server, "modern") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == NAMES
        assert text_of(await client.call_tool("runs_status", {})) == "mine\n"
