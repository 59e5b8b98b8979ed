"""Traces: a client's context reaches upstreams and tools that ask for it, and spans reach a collector."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import EmptyResult, Request

from praxis_mcp.support.logs import logger
from tests.kit.otlp import Collector, attributes_of, collector
from tests.kit.until import until
from tests.kit.upstreams import ROOT, words
from tests.serving.clients import (
    ERAS,
    LIMIT,
    Era,
    memory_client,
    open_server,
    server_command,
    server_environment,
    settings_for,
    text_of,
)
from tests.serving.http_server import http_client, running_http
from tests.serving.sample_tools import python, write_tool

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"
META: dict[str, Any] = {"traceparent": PARENT, "tracestate": "rojo=1", "baggage": "user=alice"}
SECRET = "not-for-any-span"
SHOW = python(
    "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if 'TRAC' in k or k == 'BAGGAGE'}))"
)
ASKING = ["TRACEPARENT", "TRACESTATE", "BAGGAGE"]


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    write_tool(tmp_path, "plain", SHOW)
    write_tool(tmp_path, "asking", SHOW, env_passthrough=ASKING)
    write_tool(tmp_path, "kept", SHOW, env_passthrough=ASKING, cache="pure")
    write_tool(tmp_path, "echo", ["cat"], parameters={"text": {"type": "string", "bind": "stdin"}})
    write_tool(tmp_path, "fail", ["false"])
    write_tool(tmp_path, "missing", ["praxis-no-such-command"])
    return tmp_path


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield found


def upstream() -> dict[str, Any]:
    return {"up": {"address": words("stdio"), "env": {"PYTHONPATH": str(ROOT)}}}


async def call(client: Client, name: str, arguments: dict[str, Any] | None = None, **meta: Any) -> Any:
    with anyio.fail_after(LIMIT):
        return await client.call_tool(name, arguments or {}, meta=meta or None)  # pyright: ignore[reportArgumentType]


async def variables(client: Client, name: str, **meta: Any) -> dict[str, str]:
    return json.loads(text_of(await call(client, name, **meta)))


# --- without a collector ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_clients_trace_reaches_tools_that_ask_for_it_and_no_others(
    tools: Path, era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACESTATE", "of=the-server")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"key={SECRET}")
    async with open_server(settings_for(tools)) as (_, server), memory_client(server, era) as client:
        assert await variables(client, "plain", **META) == {}
        assert await variables(client, "asking", **META) == {name.upper(): value for name, value in META.items()}
        assert await variables(client, "asking", traceparent=OTHER) == {"TRACEPARENT": OTHER}
        assert await variables(client, "kept", **META) == {}
        again = await variables(client, "kept", traceparent=OTHER)
        assert again == {}, "an answer that is kept belongs to no trace"


@pytest.mark.parametrize("era", ERAS)
async def test_a_clients_trace_reaches_upstreams(tools: Path, era: Era) -> None:
    settings = settings_for(tools, upstreams=upstream())
    async with open_server(settings) as (toolbox, server), memory_client(server, era) as client:
        with anyio.fail_after(LIMIT):
            await toolbox.upstreams.wait_attempted()
        about = json.loads(text_of(await call(client, "up_about", **META)))
        assert about["trace"] == META
        assert json.loads(text_of(await call(client, "up_about")))["trace"] == {}


HOSTILE: list[dict[str, Any]] = [
    {"traceparent": "x" * 1_000_000},
    {"traceparent": PARENT, "tracestate": "a=" + "b" * 1_000_000},
    {"traceparent": PARENT, "tracestate": ",".join(f"k{number}=1" for number in range(50_000))},
    {"traceparent": PARENT, "baggage": "a=\x1b[31mred\r\nforged log line;" * 20_000},
    {"traceparent": "\x1b]0;title\x07", "tracestate": ["a"], "baggage": {"a": {"b": "c"}}},
    {"traceparent": PARENT, "tracestate": "\x00" * 100, "baggage": "\x00=1"},
]


@pytest.mark.parametrize("exports", [False, True])
async def test_a_hostile_context_harms_nothing_and_no_log_shows_it(
    tools: Path, exports: bool, collecting: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not exports:
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    lines: list[str] = []
    logger.enable("praxis_mcp")
    sink = logger.add(lambda message: lines.append(str(message)), level=0)
    try:
        with caplog.at_level(logging.DEBUG):
            async with open_server(settings_for(tools)) as (_, server), memory_client(server, "modern") as client:
                for meta in HOSTILE:
                    found = await variables(client, "asking", **meta)
                    assert sum(map(len, found.values())) < 200
                    assert "\x1b" not in str(found)
    finally:
        logger.remove(sink)
    shown = "".join(lines) + caplog.text
    assert "forged" not in shown
    assert "\x1b" not in shown
    assert all(len(body) < 100_000 for body in collecting.bodies)


async def test_two_callers_with_one_trace_see_nothing_of_one_another(tools: Path, collecting: Collector) -> None:
    async with (
        open_server(settings_for(tools)) as (_, server),
        memory_client(server, "modern") as one,
        memory_client(server, "legacy") as other,
    ):
        await call(one, "echo", {"text": SECRET}, **META)
        assert text_of(await call(other, "echo", {"text": "mine"}, **META)) == "mine"
    first, second = collecting.named("tools/call echo", 2)
    assert (first.trace_id.hex(), second.trace_id.hex()) == (TRACE, TRACE)
    assert first.span_id != second.span_id
    assert SECRET.encode() not in b"".join(collecting.bodies)


def test_a_server_without_a_collector_imports_nothing_to_export_spans(tools: Path) -> None:
    script = (
        "import anyio, sys\n"
        "from praxis_mcp.execution.toolbox import open_toolbox\n"
        "from praxis_mcp.serving.mcp.server import PraxisServer\n"
        "from praxis_mcp.settings.model import Settings\n"
        "async def main():\n"
        "    async with open_toolbox(Settings(tools=(sys.argv[1],))) as toolbox, PraxisServer.open(toolbox):\n"
        "        pass\n"
        "anyio.run(main)\n"
        "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter', 'opentelemetry.proto', 'google', 'requests')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tools)], env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout.strip() == "[]", done.stderr


# --- with one ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_is_a_span_of_the_clients_trace_and_its_phases_are_below(
    tools: Path, era: Era, collecting: Collector
) -> None:
    async with open_server(settings_for(tools)) as (toolbox, server), memory_client(server, era) as client:
        result = await call(client, "echo", {"text": SECRET}, **META)
        assert text_of(result) == SECRET
        (record,) = toolbox.records.entries()
    (span,) = collecting.named("tools/call echo")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, "00f067aa0ba902b7")
    assert (span.kind, span.status.code, span.trace_state) == (2, 0, "rojo=1")
    found = attributes_of(span)
    assert found.pop("jsonrpc.request.id")
    assert found == {
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2026-07-28" if era == "modern" else "2025-11-25",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "echo",
        "network.transport": "pipe",
        "praxis.engine": "local",
        "praxis.outcome": "ok",
        "praxis.run.id": record.run_id,
    }
    children = [item for item in collecting.spans if item.parent_span_id == span.span_id]
    children.sort(key=lambda item: item.start_time_unix_nano)
    assert [item.name for item in children] == ["plan", "queue", "choose", "start", "run", "collect"]
    for before, after in pairwise(children):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    assert span.start_time_unix_nano <= children[0].start_time_unix_nano
    assert children[-1].end_time_unix_nano <= span.end_time_unix_nano
    seconds = record.phases.seconds
    for item in children:
        assert (item.end_time_unix_nano - item.start_time_unix_nano) / 1e9 == pytest.approx(
            seconds[item.name], abs=1e-3
        )
    assert collecting.resource["service.name"] == "praxis-mcp"
    assert SECRET.encode() not in b"".join(collecting.bodies)


async def test_failures_say_what_kind_and_quote_nothing(tools: Path, collecting: Collector) -> None:
    async with open_server(settings_for(tools)) as (_, server), memory_client(server, "modern") as client:
        await call(client, "fail")
        await call(client, "missing")
        await call(client, "echo", {"text": 5, SECRET: SECRET})
        with pytest.raises(MCPError):
            await call(client, f"no-such-tool-{SECRET}")
        with pytest.raises(MCPError):
            await client.read_resource(f"praxis://runs/{SECRET}/stdout")
    for name, outcome in (("fail", "failed"), ("missing", "error"), ("echo", "bad_arguments")):
        (span,) = collecting.named(f"tools/call {name}")
        found = attributes_of(span)
        assert (span.status.code, found["error.type"], found["praxis.outcome"]) == (2, "tool_error", outcome)
    (unknown,) = collecting.named("tools/call")
    assert attributes_of(unknown)["rpc.response.status_code"] == "-32602"
    assert "gen_ai.tool.name" not in attributes_of(unknown)
    assert collecting.named("resources/read")[0].status.code == 2
    assert all(not span.status.message and not span.events for span in collecting.spans)
    assert SECRET.encode() not in b"".join(collecting.bodies)


async def test_a_call_of_an_upstream_is_a_span_below_its_phase_and_goes_on_there(
    tools: Path, collecting: Collector
) -> None:
    settings = settings_for(tools, upstreams=upstream())
    async with open_server(settings) as (toolbox, server), memory_client(server, "modern") as client:
        with anyio.fail_after(LIMIT):
            await toolbox.upstreams.wait_attempted()
        about = json.loads(text_of(await call(client, "up_about", **META)))
        await call(client, "up_fail", **META)
    (served,) = collecting.named("tools/call up_about")
    (sent,) = collecting.named("tools/call about")
    (phase,) = [span for span in collecting.named("run", 2) if span.span_id == sent.parent_span_id]
    assert phase.parent_span_id == served.span_id
    assert sent.kind == 3
    assert about["trace"]["traceparent"] == f"00-{TRACE}-{sent.span_id.hex()}-01"
    assert (about["trace"]["tracestate"], about["trace"]["baggage"]) == ("rojo=1", "user=alice")
    assert attributes_of(sent)["network.transport"] == "pipe"
    assert attributes_of(served)["praxis.engine"] == "upstream:up"
    assert attributes_of(collecting.named("tools/call fail")[0])["error.type"] == "tool_error"


async def test_a_tool_that_asks_gets_the_span_of_its_call(tools: Path, collecting: Collector) -> None:
    async with open_server(settings_for(tools)) as (_, server), memory_client(server, "modern") as client:
        found = await variables(client, "asking", **META)
        alone = await variables(client, "asking")
    spans = collecting.named("tools/call asking", 2)
    sent = {tuple(each["TRACEPARENT"].split("-")[1:3]) for each in (found, alone)}
    assert sent == {(span.trace_id.hex(), span.span_id.hex()) for span in spans}
    assert (found["TRACESTATE"], "TRACESTATE" in alone) == ("rojo=1", False)


@pytest.mark.parametrize("era", ERAS)
async def test_over_http_the_header_is_a_link_or_the_parent_where_the_request_names_none(
    tools: Path, era: Era, collecting: Collector
) -> None:
    async with (
        running_http(
            tools, "--http", OTEL_EXPORTER_OTLP_ENDPOINT=collecting.endpoint, OTEL_SERVICE_NAME="mine"
        ) as server,
        http_client() as http,
        Client(
            streamable_http_client(server.mcp, http_client=http),
            mode="legacy" if era == "legacy" else "auto",
            read_timeout_seconds=LIMIT,
        ) as client,
    ):
        http.headers["traceparent"] = OTHER
        await call(client, "echo", {"text": "a"}, **META)
        await call(client, "plain")
        spans = await anyio.to_thread.run_sync(collecting.named, "tools/call echo")
        others = await anyio.to_thread.run_sync(collecting.named, "tools/call plain")
    (span,), (other,) = spans, others
    assert span.trace_id.hex() == TRACE
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(OTHER[3:35], OTHER[36:52])]
    assert (other.trace_id.hex(), other.parent_span_id.hex(), len(other.links)) == (OTHER[3:35], OTHER[36:52], 0)
    found = attributes_of(span)
    assert (found["network.transport"], found["network.protocol.name"]) == ("tcp", "http")
    assert (found["client.address"], "mcp.session.id" in found) == ("127.0.0.1", era == "legacy")
    assert collecting.resource["service.name"] == "mine"


async def test_a_trace_that_its_client_does_not_sample_is_passed_on_and_not_exported(
    tools: Path, collecting: Collector
) -> None:
    unsampled = PARENT[:-2] + "00"
    async with open_server(settings_for(tools)) as (_, server), memory_client(server, "modern") as client:
        found = await variables(client, "asking", traceparent=unsampled)
        await call(client, "echo", {"text": "a"})
    assert (found["TRACEPARENT"][:36], found["TRACEPARENT"][-3:]) == (unsampled[:36], "-00")
    assert len(collecting.named("tools/call echo")) == 1
    assert not [span for span in collecting.spans if span.trace_id.hex() == TRACE]


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_over_stdio_exports_its_last_spans_when_its_client_leaves(
    tools: Path, era: Era, collecting: Collector
) -> None:
    # So long that only the end of the server exports anything.
    environment = server_environment(
        OTEL_EXPORTER_OTLP_ENDPOINT=collecting.endpoint, OTEL_BSP_SCHEDULE_DELAY="600000", OTEL_SERVICE_NAME="mine"
    )
    words = server_command(str(tools))
    parameters = StdioServerParameters(command=words[0], args=words[1:], env=environment, cwd=tools)
    async with Client(parameters, mode="legacy" if era == "legacy" else "auto", read_timeout_seconds=LIMIT) as client:
        assert text_of(await call(client, "echo", {"text": "a"}, **META)) == "a"
        assert collecting.spans == []
    (span,) = await anyio.to_thread.run_sync(collecting.named, "tools/call echo")
    assert (span.trace_id.hex(), attributes_of(span)["network.transport"]) == (TRACE, "pipe")
    assert collecting.named("initialize" if era == "legacy" else "server/discover")
    assert collecting.resource["service.name"] == "mine"


def called(tools: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command line's own call."""
    return subprocess.run(
        [sys.executable, "-m", "praxis_mcp", "call", "--tools", str(tools), *words],
        env=server_environment(**environment),
        cwd=tools,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
    )


async def test_the_command_lines_own_call_is_a_span_that_is_exported_before_it_ends(
    tools: Path, collecting: Collector
) -> None:
    exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": collecting.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    asked = await anyio.to_thread.run_sync(partial(called, tools, "asking", TRACEPARENT=PARENT, **exporting))
    (span,) = [each for each in collecting.spans if each.name == "tools/call asking"]
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (TRACE, "00f067aa0ba902b7", 2)
    assert json.loads(asked.stdout)["TRACEPARENT"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    found = attributes_of(span)
    assert (found["gen_ai.tool.name"], found["praxis.engine"], found["praxis.outcome"]) == ("asking", "local", "ok")
    below = {each.name for each in collecting.spans if each.parent_span_id == span.span_id}
    assert below >= {"plan", "choose", "run", "collect"}
    failing = await anyio.to_thread.run_sync(partial(called, tools, "fail", **exporting))
    assert failing.returncode == 1
    (span,) = [each for each in collecting.spans if each.name == "tools/call fail"]
    assert attributes_of(span)["error.type"] == "tool_error"
    refused = await anyio.to_thread.run_sync(partial(called, tools, "echo", "text=1", "other=1", **exporting))
    assert refused.returncode == 2
    assert collecting.resource["service.name"] == "praxis-mcp"


async def test_a_collector_that_takes_nothing_keeps_the_command_line_only_so_long(tools: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}  # seconds
        done = await anyio.to_thread.run_sync(partial(called, tools, "plain", **exporting))
    assert (done.returncode, json.loads(done.stdout)) == (0, {})
    assert f"warning: the last spans cannot be exported to {address} within 2 s".encode() in done.stderr


async def test_without_an_endpoint_the_command_line_imports_nothing_of_opentelemetry(tools: Path) -> None:
    done = await anyio.to_thread.run_sync(partial(called, tools, "plain", PYTHONPROFILEIMPORTTIME="1"))
    assert done.returncode == 0
    assert b"praxis_mcp.cli.tool_call" in done.stderr
    assert b"opentelemetry" not in done.stderr


async def test_methods_that_nobody_knows_share_one_name(tools: Path, collecting: Collector) -> None:
    async with open_server(settings_for(tools)) as (_, server), memory_client(server, "legacy") as client:
        for number in range(3):
            request: Request[Any, str] = Request(method=f"{SECRET}/{number}", params=None)
            with anyio.fail_after(LIMIT), pytest.raises(MCPError):
                await client.session.send_request(request, EmptyResult)
    assert len(collecting.named("_OTHER", 3)) == 3
    assert SECRET.encode() not in b"".join(collecting.bodies)
    assert all(len(str(value)) <= 128 for span in collecting.spans for value in attributes_of(span).values())


async def test_a_collector_that_is_not_there_costs_a_warning_and_no_time(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:{SECRET}@127.0.0.1:9/base")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    lines: list[str] = []
    logger.enable("praxis_mcp")
    sink = logger.add(lambda message: lines.append(str(message)), level="INFO")
    try:
        async with open_server(settings_for(tools)) as (_, server), memory_client(server, "modern") as client:
            for _ in range(3):
                assert text_of(await call(client, "echo", {"text": "a"})) == "a"
            await until(lambda: any("cannot be exported" in line for line in lines), within=LIMIT)
            await call(client, "echo", {"text": "a"})
            began = time.monotonic()
        assert time.monotonic() - began < LIMIT
    finally:
        logger.remove(sink)
    assert sum("cannot be exported to http://127.0.0.1:9," in line for line in lines) == 1
    assert SECRET not in "".join(lines)


async def test_a_collector_that_hangs_does_not_hold_the_end_up(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
        async with open_server(settings_for(tools)) as (_, server), memory_client(server, "modern") as client:
            await call(client, "echo", {"text": "a"})
            began = time.monotonic()
        assert time.monotonic() - began < LIMIT


async def test_without_the_sdk_calls_go_on_and_the_log_has_the_command_that_installs_it(
    tools: Path, collecting: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    lines: list[str] = []
    logger.enable("praxis_mcp")
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    try:
        async with open_server(settings_for(tools)) as (_, server), memory_client(server, "modern") as client:
            assert (await variables(client, "asking", **META))["TRACEPARENT"] == PARENT
    finally:
        logger.remove(sink)
    assert sum("OpenTelemetry's SDK is not installed" in line for line in lines) == 1
    assert collecting.spans == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-5", "refuses its variables"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "not an address of http"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:{SECRET}@host:port", "not an address of http"),
    ],
)
async def test_variables_that_cannot_be_followed_cost_spans_and_a_warning(
    tools: Path, collecting: Collector, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    lines: list[str] = []
    logger.enable("praxis_mcp")
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    try:
        async with open_server(settings_for(tools)) as (_, server), memory_client(server, "modern") as client:
            assert text_of(await call(client, "echo", {"text": "a"})) == "a"
    finally:
        logger.remove(sink)
    assert any(said in line for line in lines)
    assert not any(SECRET in line for line in lines)
    assert collecting.spans == []
