"""What odd upstreams list and answer, as clients of this server get it."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from starlette.responses import JSONResponse, Response

from praxis_mcp.errors import ArgumentError
from praxis_mcp.support.logs import logger
from tests.federation.test_upstreams import call, names, proxy
from tests.kit.raw_upstream import RawUpstream, answer, raw_upstream
from tests.kit.until import until
from tests.serving.clients import ERAS, Era, text_of

pytestmark = pytest.mark.anyio
JSON = "application/json"


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[RawUpstream]:
    async with raw_upstream() as found:
        yield found


@pytest.fixture
def log() -> Any:
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    yield lines
    logger.remove(number)


def lists(server: RawUpstream, *tools: Any) -> None:
    server.answers["tools/list"] = lambda m: JSONResponse(answer(m, result={"tools": list(tools)}))


def tool(name: str, schema: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"} if schema is None else schema, **more}


def calls(server: RawUpstream, **result: Any) -> None:
    server.answers["tools/call"] = lambda m: JSONResponse(answer(m, result=result))


def booleans(schema: Any) -> list[Any]:
    """The boolean schemas anywhere in a schema, but for additionalProperties, which every client reads."""
    if isinstance(schema, list):
        return [found for part in schema for found in booleans(part)]
    if not isinstance(schema, dict):
        return []
    found = [value for key, value in schema.items() if isinstance(value, bool) and key != "additionalProperties"]
    return found + [item for value in schema.values() for item in booleans(value)]


@pytest.mark.parametrize("era", ERAS)
async def test_tools_that_say_too_little_are_served_open_and_those_without_a_name_are_left_out_with_the_reason(
    tmp_path: Path, server: RawUpstream, log: list[str], era: Era
) -> None:
    text = {"type": "string"}
    lists(
        server,
        {"name": "no_schema"},
        tool("null_properties", {"type": "object", "properties": None, "required": None, "description": None}),
        tool("null_part", {"type": "object", "properties": {"a": None, "b": {**text, "default": None}}}),
        tool("true", {"type": "object", "properties": {"a": True, "b": False, "c": {"items": True, "not": False}}}),
        tool("fine", outputSchema={"type": "object", "properties": {"result": True}}),
        {"name": 7, "inputSchema": {"type": "object"}},
        {"inputSchema": {"type": "object"}},
    )
    async with proxy(tmp_path, era, up={"address": server.url, "refresh": 1}) as (client, toolbox):
        assert await names(client) == ["up_fine", "up_no_schema", "up_null_part", "up_null_properties", "up_true"]
        tools = {item.name: item for item in (await client.list_tools(cache_mode="bypass")).tools}
        assert tools["up_no_schema"].input_schema == {"type": "object"}
        assert tools["up_null_properties"].input_schema == {"type": "object"}
        assert tools["up_null_part"].input_schema["properties"] == {"a": {}, "b": {**text, "default": None}}
        for item in tools.values():
            assert booleans(item.input_schema) == booleans(item.output_schema) == []
            assert text_of(await call(client, item.name, a=1)) == "fine" or item.name == "up_fine"
        left_out = dict(toolbox.upstreams.reports()[0].left_out)
        assert left_out == dict.fromkeys(("7", "(no name)"), "its name is missing, or not text")
        listings = server.seen.count("tools/list")
        await until(lambda: server.seen.count("tools/list") >= listings + 2)  # the first has been taken in
        assert sum("7 of the upstream up is not served" in line for line in log) == 1, "said once, not at every listing"


@pytest.mark.parametrize("era", ERAS)
async def test_a_tool_that_is_listed_twice_is_one_tool_and_two_of_one_name_are_said(
    tmp_path: Path, server: RawUpstream, era: Era
) -> None:
    lists(server, tool("same"), tool("same"), tool("other"), tool("other", description="another"))
    async with proxy(tmp_path, era, up={"address": server.url}) as (client, toolbox):
        assert await names(client) == ["up_other", "up_same"]
        assert [name for name, _ in toolbox.upstreams.reports()[0].left_out] == ["other"]


SCHEMA = {"type": "object", "properties": {"code": {"type": "integer"}}, "required": ["code"]}
FAILED = {"isError": True, "content": [{"type": "text", "text": "it broke"}]}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["open", "with a schema"])
async def test_the_structured_content_of_an_error_is_kept(
    tmp_path: Path, server: RawUpstream, era: Era, schema: Any
) -> None:
    lists(server, tool("t", **({"outputSchema": schema} if schema else {})))
    calls(server, **FAILED, structuredContent={"code": 7})
    async with proxy(tmp_path, era, up={"address": server.url}) as (client, _):
        await names(client)
        result = await call(client, "up_t")
    assert (result.is_error, text_of(result), result.structured_content) == (True, "it broke", {"code": 7})


@pytest.mark.parametrize("era", ERAS)
async def test_the_structured_content_of_an_error_is_kept_although_the_schema_promises_something_else(
    tmp_path: Path, server: RawUpstream, era: Era
) -> None:
    lists(server, tool("t", outputSchema=SCHEMA))
    calls(server, **FAILED, structuredContent={"reason": "full"})
    async with proxy(tmp_path, era, up={"address": server.url}) as (client, _):
        await names(client)
        result = await call(client, "up_t")
    assert (result.is_error, text_of(result), result.structured_content) == (True, "it broke", {"reason": "full"})


async def test_structured_content_of_an_error_has_the_form_that_the_clients_era_allows(
    tmp_path: Path, server: RawUpstream
) -> None:
    lists(server, tool("t"))
    calls(server, **FAILED, structuredContent=[1, 2])
    for era, expected in (("legacy", {"result": [1, 2]}), ("modern", [1, 2])):
        async with proxy(tmp_path, era, up={"address": server.url}) as (client, _):  # pyright: ignore[reportArgumentType]
            await names(client)
            assert (await call(client, "up_t")).structured_content == expected


@pytest.mark.parametrize("era", ERAS)
async def test_a_contracts_remote_tool_keeps_the_structured_content_of_an_error_too(
    tmp_path: Path, server: RawUpstream, era: Era
) -> None:
    spec = {"address": server.url, "tool": "t"}
    for name, schema in (("fits", SCHEMA), ("open", None), ("misfits", {**SCHEMA, "required": ["reason"]})):
        contract = {"name": name, "engine": "remote-mcp", "engine_spec": spec}
        if schema is not None:
            contract |= {"output": "json", "output_schema": schema}
        (tmp_path / f"{name}.contract.yaml").write_text(json.dumps(contract))
    calls(server, **FAILED, structuredContent={"code": 7})
    async with proxy(tmp_path, era) as (client, _):
        for name in ("fits", "open", "misfits"):
            result = await call(client, name)
            assert (result.is_error, result.structured_content) == (True, {"code": 7})


async def test_a_schema_keeps_parameters_and_values_that_look_like_keywords(
    tmp_path: Path, server: RawUpstream
) -> None:
    parts = {"x-mcp-header": {"type": "string"}, "$ref": {"enum": [None, {"$ref": "http://x.example"}]}}
    lists(server, tool("t", {"type": "object", "properties": parts}))
    async with proxy(tmp_path, up={"address": server.url}) as (client, _):
        await names(client)
        assert (await client.list_tools()).tools[0].input_schema["properties"] == parts


@pytest.mark.parametrize("era", ERAS)
async def test_a_tool_with_what_json_cannot_carry_costs_no_other_tool_and_no_client_its_list(
    tmp_path: Path, server: RawUpstream, log: list[str], era: Era
) -> None:
    odd = tool("odd", {"type": "object", "properties": {"a": {"maximum": math.inf, "default": math.nan}}})
    half = tool("half", {"type": "object", "properties": {"a": {"description": "half of a pair: \ud800"}}})
    listed = json.dumps({"tools": [odd, {**half, "outputSchema": odd["inputSchema"]}, tool("plain")]})
    server.answers["tools/list"] = lambda m: Response(
        f'{{"jsonrpc":"2.0","id":{m["id"]},"result":{listed}}}', media_type="application/json"
    )
    async with proxy(tmp_path, era, u={"address": server.url}) as (client, _):
        tools = {found.name: found for found in (await client.list_tools()).tools}
    assert list(tools) == ["u_half", "u_odd", "u_plain"]
    assert tools["u_odd"].input_schema == {"type": "object", "properties": {"a": {}}}
    assert tools["u_half"].input_schema["properties"]["a"]["description"] == "half of a pair: \ufffd"
    assert tools["u_half"].output_schema is None


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("is_error", [True, False])
async def test_a_number_that_json_cannot_carry_is_never_sent_on_as_null(
    tmp_path: Path, server: RawUpstream, era: Era, is_error: bool
) -> None:
    content = [{"type": "text", "text": "said", "_meta": {"b": -math.inf}}]
    result = {"content": content, "structuredContent": {"a": math.inf}, "_meta": {"c": math.nan}, "isError": is_error}
    server.answers["tools/call"] = lambda m: Response(json.dumps(answer(m, result=result)), media_type=JSON)
    async with proxy(tmp_path, era, u={"address": server.url}) as (client, _):
        found = await call(client, "u_t")
        assert found.is_error
        assert found.structured_content is None
        assert "said" in [getattr(block, "text", "") for block in found.content]
        assert any("1e999" in getattr(block, "text", "") for block in found.content)
        shown = found.model_dump(mode="json", by_alias=True)
        assert shown["_meta"]["c"] == "NaN"
        assert next(block for block in shown["content"] if block["text"] == "said")["_meta"]["b"] == "-Infinity"
        error = {"code": -32000, "message": "x", "data": {"d": math.inf}}
        server.answers["tools/call"] = lambda m: Response(json.dumps(answer(m, error=error)), media_type=JSON)
        with pytest.raises(MCPError) as raised:
            await call(client, "u_t")
        assert raised.value.data == {"d": "Infinity"}


async def test_an_argument_that_json_cannot_carry_is_refused_before_it_is_passed_on(
    tmp_path: Path, server: RawUpstream
) -> None:
    async with proxy(tmp_path, u={"address": server.url}) as (client, toolbox):
        await names(client)
        found = await toolbox.relays.find("u_t")
        assert found is not None
        with pytest.raises(ArgumentError, match="1e999"):
            await toolbox.relays.call(found, {"a": [math.inf]})
        assert server.calls == []
        assert text_of(await call(client, "u_t", a=[1.5])) == "fine"
