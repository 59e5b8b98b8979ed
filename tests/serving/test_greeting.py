"""The first answer over stdio, which is given before the MCP SDK is there: it is the one that the SDK gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import ClientCapabilities, InitializeRequestParams, JSONRPCResponse, jsonrpc_message_adapter
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from praxis_mcp.serving import greeting
from praxis_mcp.settings.model import Settings
from tests.serving.clients import LIMIT, open_server, settings_for
from tests.serving.test_stdio import running_server

pytestmark = pytest.mark.anyio

META = "io.modelcontextprotocol/"
INFO = {"name": "client", "version": "1"}
PLAIN = {"name": "client", "version": "1", "title": "A client", "websiteUrl": "https://example.com"}
CAPABILITIES: list[dict[str, Any]] = [
    {},
    {"roots": {"listChanged": True}, "sampling": {}},
    {"elicitation": {"form": {}, "url": {}}, "experimental": {"x": {}}, "unknown": {}},
]


def initialize(version: str = "2025-11-25", capabilities: Any = None, info: Any = INFO, **more: Any) -> dict[str, Any]:
    params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": info, **more}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


def discover(version: str = "2026-07-28", capabilities: Any = None, info: Any = INFO) -> dict[str, Any]:
    meta = {f"{META}protocolVersion": version, f"{META}clientCapabilities": capabilities or {}}
    params = {"_meta": {**meta, f"{META}clientInfo": info}}
    return {"jsonrpc": "2.0", "id": "first", "method": "server/discover", "params": params}


async def answer_of_the_sdk(message: dict[str, Any], settings: Settings) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    async with open_server(settings) as (_, server), anyio.create_task_group() as tasks:
        send, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](1)
        outgoing, receive = anyio.create_memory_object_stream[SessionMessage](1)
        tasks.start_soon(server.serve, incoming, outgoing)
        await send.send(SessionMessage(jsonrpc_message_adapter.validate_python(message)))
        with anyio.fail_after(LIMIT):
            answer = (await receive.receive()).message
        assert isinstance(answer, JSONRPCResponse), answer
        found.append(json.loads(answer.model_dump_json(by_alias=True, exclude_unset=True)))
        await send.aclose()
        await receive.aclose()
    return found[0]


ANSWERED = [
    *(initialize(version) for version in (*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS, "2099-01-01", "")),
    *(make(capabilities=each, info=PLAIN) for make in (initialize, discover) for each in CAPABILITIES),
    *(discover(version) for version in MODERN_PROTOCOL_VERSIONS),
]


@pytest.mark.parametrize("message", ANSWERED, ids=lambda message: message["method"])
@pytest.mark.parametrize(
    "own", [{}, {"name": "mine", "instructions": "Say “yes”.\nOr no."}], ids=["defaults", "own words"]
)
async def test_the_first_answer_is_the_sdks(message: dict[str, Any], own: dict[str, str], tmp_path: Path) -> None:
    settings = settings_for(tmp_path, server=own, records={"directory": tmp_path / "records"})
    assert greeting.answer_to(json.dumps(message).encode(), settings) == await answer_of_the_sdk(message, settings)


UPSTREAM = {"other": {"address": "http://127.0.0.1:1/mcp"}}


@pytest.mark.parametrize(
    ("values", "beginning"),
    [
        ({}, "Each tool runs one command, isolated as far as its contract and this machine allow, and returns"),
        ({"engines": {"local": {"sandbox": "off"}}}, "Each tool runs one command, isolated as far as"),
        ({"engines": {"local": {"sandbox": "require"}}}, "Each tool runs one command in a container or a sandbox and"),
        ({"upstreams": UPSTREAM}, "Each tool runs one command, isolated as far as"),
        ({"tools": (), "upstreams": UPSTREAM}, "The tools are those of other MCP servers, and run there. Long output"),
    ],
)
def test_a_sandbox_is_promised_only_where_the_settings_make_sure_of_one(values: dict[str, Any], beginning: str) -> None:
    text = greeting.instructions_of(Settings(**values))
    assert text.startswith(beginning)
    assert ("other MCP servers" in text) is ("upstreams" in values)
    assert ("sandbox" in text) is ("require" in str(values))


PARAMS = initialize()["params"]
LEFT = [
    *(b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"jsonrpc": "2.0", "id": 1, "method": "initialize"}'),
    *(b"\xef\xbb\xbf" + json.dumps(initialize()).encode(), json.dumps(initialize()).encode("utf-16")),
    *(json.dumps({**initialize(), "id": each}).encode() for each in (None, True, 1.5, 10**30, "\ud800")),
    *(
        json.dumps({**initialize(), **each}).encode()
        for each in ({"jsonrpc": "1.0"}, {"more": 1}, {"method": "tools/list"}, {"params": []})
    ),
    *(
        json.dumps(initialize(capabilities=each)).encode()
        for each in ([1], {"roots": 5}, {"roots": {"x": 5}}, {"roots": None})
    ),
    *(
        json.dumps(initialize(info=each)).encode()
        for each in (
            [],
            {"name": "x"},
            {"name": 5, "version": "1"},
            {**INFO, "icons": [{"src": 5}]},
            {**INFO, "icons": "x"},
        )
    ),
    *(
        json.dumps({**initialize(), "params": {**PARAMS, **each}}).encode()
        for each in ({"_meta": {"progressToken": 1}}, {"protocolVersion": 1})
    ),
    *(json.dumps(discover(version)).encode() for version in ("2027-01-01", "2025-11-25")),
    *(json.dumps(each).encode() for each in (discover(info=None), discover(capabilities={"x": 1}))),
    *(json.dumps({**discover(), "params": each}).encode() for each in ({}, {**discover()["params"], "cursor": "x"})),
]


@pytest.mark.parametrize("line", LEFT, ids=range(len(LEFT)))
def test_whatever_is_not_plain_is_left_to_the_sdk(line: bytes) -> None:
    assert greeting.answer_to(line, Settings()) is None


CLIENT_CAPABILITIES = sorted(ClientCapabilities.model_json_schema(by_alias=True)["properties"])


@pytest.mark.parametrize("value", [True, False, {}], ids=json.dumps)
@pytest.mark.parametrize("name", [*CLIENT_CAPABILITIES, "unknown"])
def test_no_capability_is_accepted_that_the_sdk_refuses(name: str, value: Any) -> None:
    for part in ("listChanged", "context", "tools", "form", "url", "list", "cancel", "requests", "unknown"):
        message = initialize(capabilities={name: {part: value}})
        if greeting.answer_to(json.dumps(message).encode(), Settings()) is not None:
            InitializeRequestParams.model_validate(message["params"], by_name=False)


def test_versions_are_those_of_the_sdk() -> None:
    assert greeting.HANDSHAKE_VERSIONS == HANDSHAKE_PROTOCOL_VERSIONS
    assert greeting.MODERN_VERSIONS == MODERN_PROTOCOL_VERSIONS


async def test_a_first_message_is_answered_once_and_those_behind_it_in_their_turn(sample_directory: Path) -> None:
    lines = [
        initialize(),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},  # a later request may have that id again
        {"jsonrpc": "2.0", "id": 3, "method": "tools/list"},
    ]
    async with running_server(sample_directory) as wire:
        for each in lines[:3]:
            await wire.send(each)
        assert [(await wire.receive())["id"] for _ in range(2)] == [1, 2]
        for each in lines[3:]:
            await wire.send(each)
        again, tools = await wire.receive(), await wire.receive()
    assert (again["id"], again["result"]) == (1, {})
    assert tools["result"]["tools"]


async def test_a_first_message_in_pieces_is_answered_too(sample_directory: Path) -> None:
    text = json.dumps(initialize()).encode() + b"\n"
    async with running_server(sample_directory) as wire:
        await wire.stdin.send(text[:40])
        await anyio.lowlevel.checkpoint()
        await wire.stdin.send(text[40:])
        assert (await wire.receive())["result"]["serverInfo"]["name"] == "praxis-mcp"
        assert (await wire.request(2, "ping"))["result"] == {}


def test_nothing_of_the_sdk_is_imported_before_it(tmp_path: Path) -> None:
    code = (
        "import sys, praxis_mcp.cli.app, praxis_mcp.cli.serve, praxis_mcp.settings.model, praxis_mcp.serving.greeting\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('mcp', 'mcp_types', 'httpx2', 'starlette')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=True)
    assert done.stdout.strip() == "[]"
