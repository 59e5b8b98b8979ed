"""find_tool and call_tool, in front of more tools than anybody wants to be shown."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.serving.access import hash_token
from praxis_mcp.serving.mcp.costs import costs_of
from praxis_mcp.serving.mcp.search_tools import TOOLS
from praxis_mcp.serving.tool_index import ToolIndex, words_of
from tests.kit.contracts import write_tool
from tests.serving.clients import ERAS, Era, memory_client, open_server, settings_for, text_of
from tests.serving.http_server import client_of, running_http
from tests.serving.many_tools import contracts, questions, write_all

pytestmark = pytest.mark.anyio

EVERYTHING: dict[str, Any] = {"search": {"above": 0}}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    text = {"text": {"type": "string", "description": "What is said.", "bind": "env"}}
    write_tool(directory, "say_loudly", ["sh", "-c", 'echo "$TEXT"'], description="Shouts.", parameters=text)
    write_tool(directory, "listPods", ["true"], description="Shows what runs.", tags=["cluster"])
    write_tool(directory, "resize_image", ["true"], description="Makes a picture smaller.")
    return directory


@asynccontextmanager
async def searching(directory: Path, era: Era = "modern", **sections: Any) -> AsyncIterator[tuple[Client, Toolbox]]:
    async with (
        open_server(settings_for(directory, **(sections or EVERYTHING))) as (toolbox, server),
        memory_client(server, era) as client,
    ):
        yield client, toolbox


async def names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


async def found(client: Client, query: str, **more: Any) -> list[str]:
    result = await client.call_tool("find_tool", {"query": query, **more})
    text = text_of(result)
    return [tool["name"] for tool in json.loads(text)["tools"]] if text.startswith("{") else []


@pytest.mark.parametrize("era", ERAS)
async def test_a_tool_is_found_by_words_and_called_as_itself(tools: Path, era: Era) -> None:
    async with searching(tools, era) as (client, toolbox):
        assert await names(client) == ["call_tool", "find_tool"]
        assert (await found(client, "something that shouts"))[0] == "say_loudly"
        answer = json.loads(text_of(await client.call_tool("find_tool", {"query": "say_loudly", "limit": 1})))
        assert answer["tools"][0]["inputSchema"]["properties"]["text"]["description"] == "What is said."
        result = await client.call_tool("call_tool", {"name": "say_loudly", "arguments": {"text": "hey"}})
        assert text_of(result) == "hey\n"
        (run,) = await toolbox.records.newest("", str(tools), 10)
        assert run.tool == "say_loudly"
        assert text_of(await client.call_tool("say_loudly", {"text": "directly"})) == "directly\n"


@pytest.mark.parametrize(
    ("question", "tool"),
    [
        ("erase a refund of Stripe", "stripe_delete_refund"),
        ("fetch all invoices", "stripe_list_invoice"),
        ("insert a Jira ticket", "jira_create_ticket"),
        ("edit a Jira ticket", "jira_update_ticket"),
        ("view a Jira ticket", "jira_get_ticket"),
    ],
)
def test_a_tool_is_found_by_another_verb_than_its_own(question: str, tool: str) -> None:
    tools = [RemoteTool(name, "up", name, {}, description=fields["description"]) for name, fields in contracts()]
    with closing(ToolIndex(tools)) as index:
        assert tool in index.find(question, 2)


async def test_what_is_wrong_is_a_result_that_a_model_can_act_on(tools: Path) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("call_tool", {"name": "say_loudly", "arguments": {"words": "hey"}}, "words"),
        ("call_tool", {"name": "say_loudli", "arguments": {}}, "find_tool finds tools by words."),
        ("call_tool", {"arguments": {}}, "name is missing"),
        ("call_tool", {"name": "say_loudly", "arguments": "text=hey"}, "arguments is an object"),
        ("call_tool", {"name": "say_loudly", "args": {}}, "call_tool has no parameter args"),
        ("call_tool", {"name": "find_tool", "arguments": {}}, "There is no tool"),
        ("find_tool", {"query": " "}, "query is missing"),
        ("find_tool", {"query": "say", "limit": 99}, "from 1 to 20"),
    ]
    async with searching(tools) as (client, _):
        for tool, arguments, says in cases:
            result = await client.call_tool(tool, arguments)
            assert result.is_error, arguments
            assert says in text_of(result)
        assert "No tool fits" in text_of(await client.call_tool("find_tool", {"query": "qwertz"}))


async def test_the_core_stays_listed_and_clients_that_defer_load_it_at_once(tools: Path) -> None:
    async with searching(tools, search={"above": 2, "core": ["list*"]}) as (client, _):
        listed = (await client.list_tools()).tools
        assert [tool.name for tool in listed] == ["call_tool", "find_tool", "listPods"]
        assert all((tool.meta or {}).get("anthropic/alwaysLoad") is True for tool in listed)


async def test_up_to_so_many_tools_all_are_listed(tools: Path) -> None:
    async with searching(tools, search={"above": 3}) as (client, _):
        assert await names(client) == ["listPods", "resize_image", "say_loudly"]
        assert await found(client, "shouts") == ["say_loudly"]  # by a client that has an older list


async def test_nothing_is_searched_unless_the_settings_say_so(tools: Path) -> None:
    async with searching(tools, search={}) as (client, _):
        assert await names(client) == ["listPods", "resize_image", "say_loudly"]
        with pytest.raises(MCPError, match="There is no tool"):
            await client.call_tool("find_tool", {"query": "shouts"})


async def test_a_tool_of_the_same_name_is_served_and_all_are_listed(tools: Path) -> None:
    write_tool(tools, "find_tool", ["echo", "mine"])
    async with searching(tools) as (client, _):
        assert "resize_image" in await names(client)
        assert text_of(await client.call_tool("find_tool", {})) == "mine\n"


async def test_a_toolset_asks_for_it_and_scopes_hold_through_it(tools: Path) -> None:
    toolsets = {"some": {"tools": ["say_*", "listPods"], "search": True, "core": ["listPods"]}}
    tokens = {
        "some": {"sha256": hash_token("praxis_some"), "toolsets": ["some"]},
        "say": {"sha256": hash_token("praxis_say"), "toolsets": ["some"], "scopes": ["tools:say_*"]},
    }
    auth = {"auth": {"tokens": tokens}}
    async with running_http(tools, "--http", http=auth, PRAXIS_TOOLSETS=json.dumps(toolsets)) as server:
        async with client_of(server, "praxis_some") as client:
            assert await names(client) == ["call_tool", "find_tool", "listPods"]
            assert await found(client, "picture smaller resize image") == []
            result = await client.call_tool("call_tool", {"name": "resize_image"})
            assert text_of(result).startswith('There is no tool "resize_image".')
        async with client_of(server, "praxis_say") as client:
            assert await names(client) == ["call_tool", "find_tool"]
            assert await found(client, "pods that run, or shouts") == ["say_loudly"]
            result = await client.call_tool("call_tool", {"name": "listPods"})
            assert "do not cover" in text_of(result)


async def test_what_does_not_fit_into_an_answer_is_named(tools: Path) -> None:
    for number in range(4):
        write_tool(tools, f"long_{number}", ["true"], description="Lengthy. " + "word " * 150)
    async with searching(tools, search={"above": 0, "max_bytes": 1024}) as (client, _):
        text = text_of(await client.call_tool("find_tool", {"query": "lengthy"}))
        answer = json.loads(text)
        assert len(answer["tools"]) == 1
        assert len(answer["more"]) == 3
        assert len(text) < 2048


async def test_a_changed_catalog_is_searched_as_it_is_now(tools: Path) -> None:
    async with searching(tools) as (client, toolbox):
        assert await found(client, "telescope") == []
        write_tool(tools, "look_far", ["true"], description="Points the telescope.")
        await toolbox.catalog.load()
        assert await found(client, "telescopes") == ["look_far"]


def test_names_are_words() -> None:
    words = ["list", "pods", "get", "http", "status", "aws", "s", "3", "bucket"]
    assert words_of("listPods get-HTTPStatus aws_s3.bucket") == words


async def test_of_a_thousand_contracts_the_right_one_is_found_and_little_is_listed(tmp_path: Path) -> None:
    assert write_all(tmp_path) == 1000
    settings = settings_for(tmp_path, **EVERYTHING)
    async with open_toolbox(settings) as toolbox:
        entries = toolbox.catalog.entries()
    index = ToolIndex(entries)
    written = questions()
    hits = sum(not answers.isdisjoint(index.find(question, 5)) for question, answers in written)
    index.close()
    assert len(written) == 100
    assert hits >= 90
    whole = sum(cost.bytes for cost in costs_of(entries, settings).values())
    listed = sum(len(tool.model_dump_json(by_alias=True, exclude_none=True)) for tool in TOOLS.values())
    assert listed <= whole * 0.05
    print(f"{hits} of 100, {listed} of {whole} bytes")
