"""Tools of other servers, republished: real upstreams, a real client, both protocol eras on either side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

from praxis_mcp.errors import QueueFull
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.federation import upstream_source
from praxis_mcp.federation import upstreams as upstreams_module
from praxis_mcp.federation.remote_tools import RemoteTool, Unusable, adapt
from praxis_mcp.support.logs import logger
from praxis_mcp.upstreams import loops
from tests.kit.ports import NOWHERE, held_port
from tests.kit.until import until
from tests.kit.upstreams import ROOT, TRANSPORTS, Place, upstream_at, words
from tests.serving.clients import ERAS, LIMIT, Era, memory_client, open_server, settings_for, text_of
from tests.serving.sample_tools import write_sample_tools, write_tool

pytestmark = pytest.mark.anyio

STARTING = 60.0
"""Seconds that upstreams may take to start; an upstream that cannot be reached is given up after 30."""


@asynccontextmanager
async def proxy(
    directory: Path, era: Era = "modern", message_handler: Any = None, **upstreams: Any
) -> AsyncIterator[tuple[Client, Toolbox]]:
    """A client on a server that republishes these upstreams, each of which has been asked for its tools."""
    settings = settings_for(directory, upstreams=upstreams)
    async with (
        open_server(settings) as (toolbox, server),
        memory_client(server, era, message_handler=message_handler) as client,
    ):
        await asked(toolbox)
        yield client, toolbox


async def asked(toolbox: Toolbox) -> None:
    """Wait until every upstream has listed its tools, or has failed to: on a busy machine that takes a while."""
    with anyio.fail_after(STARTING):
        await toolbox.upstreams.wait_attempted()


async def names(client: Client) -> list[str]:
    found: list[str] = []
    cursor = None
    with anyio.fail_after(LIMIT):
        while True:
            page = await client.list_tools(cursor=cursor, cache_mode="bypass")
            found += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return found


async def call(client: Client, name: str, **arguments: Any) -> Any:
    with anyio.fail_after(LIMIT):
        return await client.call_tool(name, arguments)


@pytest.fixture(scope="module", params=[(kind, era) for kind in TRANSPORTS for era in ERAS], ids="-".join)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An upstream over every transport, in both eras."""
    kind, era = request.param
    with upstream_at(kind, era, tmp_path_factory.mktemp("upstream")) as found:
        yield found


@pytest.fixture(scope="module", params=ERAS)
async def relayed(
    request: pytest.FixtureRequest, anyio_backend: str, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Client, Toolbox, Place]]:
    """A client, in both eras, on a server that republishes `place` as `up`."""
    async with proxy(tmp_path_factory.mktemp("empty"), request.param, up={"address": place.address}) as (client, box):
        yield client, box, place


Relayed = tuple[Client, Toolbox, Place]


async def test_tools_of_every_page_are_listed_under_the_prefix(relayed: Relayed) -> None:
    found = await names(relayed[0])
    assert found == sorted(found)
    assert {"up_echo", "up_kinds", "up_about"} <= set(found)
    assert len(found) >= 13


async def test_a_result_is_relayed_with_content_of_every_kind(relayed: Relayed) -> None:
    result = await call(relayed[0], "up_kinds")
    assert [block.type for block in result.content] == ["text", "image", "audio", "resource", "resource_link"]
    assert result.meta["com.example/kept"] == 1


async def test_structured_output_is_relayed(relayed: Relayed) -> None:
    result = await call(relayed[0], "up_sum", a=1, b=2)
    assert result.structured_content == {"sum": 3}


async def test_errors_are_relayed_as_they_are(relayed: Relayed) -> None:
    result = await call(relayed[0], "up_fail")
    assert (result.is_error, text_of(result)) == (True, "it did not work")
    with pytest.raises(MCPError, match="no such thing") as caught:
        await call(relayed[0], "up_refuse")
    assert (caught.value.code, caught.value.data) == (-32602, {"hint": 7})


async def test_a_linked_resource_can_be_read_and_another_cannot(relayed: Relayed) -> None:
    result = await call(relayed[0], "up_kinds")
    uri = result.content[-1].uri
    assert uri.startswith("praxis://upstreams/up/")
    read = await relayed[0].read_resource(uri)
    assert [item.model_dump()["text"] for item in read.contents] == ["what was linked"]
    assert read.contents[0].uri == uri
    with pytest.raises(MCPError, match="No result"):
        await relayed[0].read_resource("praxis://upstreams/up/note%3A%2F%2Fsecret")


async def test_a_tool_and_a_resource_of_an_upstream_show_no_secret_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", "s3cr3t-value")
    command = [sys.executable, "-m", "tests.kit.odd_server"]
    async with proxy(tmp_path, up={"address": command, "env": {"SECRET": {"secret": "ODD"}}}) as (client, _):
        assert (await client.list_tools()).tools[0].description == "Says what it is told to.***"
        link = {"type": "resource_link", "uri": "note://x", "name": "x"}
        result = await call(client, "up_say", result={"content": [link]})
        read = (await client.read_resource(result.content[0].uri)).contents[0].model_dump(by_alias=True)
        assert (read["text"], read["_meta"]) == ("***", {"a": ["***"]})


async def test_reading_a_linked_resource_takes_a_place_of_its_reader_and_of_the_server_as_a_call_does(
    tmp_path: Path,
) -> None:
    limits = {"max_concurrency": 1, "max_queue": 0, "max_per_caller": 1}
    settings = settings_for(tmp_path, upstreams={"up": {"address": words("stdio")}}, calls=limits)
    async with open_server(settings) as (toolbox, server), memory_client(server, "modern") as client:
        await asked(toolbox)
        uri = (await call(client, "up_kinds")).content[-1].uri
        async with toolbox.runner.admission.slot("another"):
            with pytest.raises(MCPError, match=r"busy.*1 call is running.*Try again") as caught:
                await client.read_resource(uri)
            assert caught.value.code == INTERNAL_ERROR, "the resource is there"
        assert (await client.read_resource(uri)).contents
        kinds = toolbox.upstreams.find("up_kinds")
        assert kinds is not None
        await toolbox.relays.call(kinds, {}, caller="anna")
        with toolbox.runner.callers.hold("anna", "another"), pytest.raises(QueueFull, match="1 of your calls"):
            await toolbox.relays.read("up", "note://linked", caller="anna")
        assert await toolbox.relays.read("up", "note://linked", caller="anna")


async def test_progress_is_relayed(relayed: Relayed) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    with anyio.fail_after(LIMIT):
        await relayed[0].call_tool("up_progress", {"seconds": 0.3}, progress_callback=hear)
    assert heard[-1] == (3, 3, "step 3")


async def test_cancelling_reaches_the_upstream(relayed: Relayed) -> None:
    client, _, place = relayed
    calls, cancelled = place.noted().count("called hang"), place.noted().count("cancelled hang")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "up_hang", {})
        await until(lambda: place.noted().count("called hang") > calls)
        tasks.cancel_scope.cancel()
    await until(lambda: place.noted().count("cancelled hang") > cancelled)


async def test_an_upstream_that_hangs_leaves_places_to_tools_of_ours_and_of_others(tmp_path: Path) -> None:
    write_tool(tmp_path, "ours", ["echo", "here"])
    upstreams = {name: {"address": words("stdio")} for name in ("up", "also")}
    settings = settings_for(tmp_path, root=ROOT, upstreams=upstreams, calls={"max_concurrency": 2})
    async with open_server(settings) as (toolbox, server), memory_client(server, "modern") as client:
        await asked(toolbox)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "up_hang", {})
            tasks.start_soon(client.call_tool, "up_slow", {"seconds": 600})
            admission = toolbox.runner.admission
            await until(lambda: admission.running and admission.running + admission.waiting == 2)
            assert text_of(await call(client, "ours")).strip() == "here"
            assert text_of(await call(client, "also_echo", text="there")) == "there"
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("beside", "most"), [("nothing", 4), ("a contract", 2), ("another upstream", 2)])
async def test_an_upstream_that_alone_is_served_may_take_every_place(tmp_path: Path, beside: str, most: int) -> None:
    if beside == "a contract":
        write_tool(tmp_path, "ours", ["echo", "here"])
    upstreams = {name: {"address": words("stdio")} for name in ("up", "also")[: 1 + (beside == "another upstream")]}
    settings = settings_for(tmp_path, root=ROOT, upstreams=upstreams, calls={"max_concurrency": 4})
    async with open_server(settings) as (toolbox, server), memory_client(server, "modern") as client:
        await asked(toolbox)
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(client.call_tool, "up_hang", {})
            admission = toolbox.runner.admission
            await until(lambda: admission.running + admission.waiting == 5)
            assert admission.running == most
            tasks.cancel_scope.cancel()


async def test_long_text_is_shown_as_head_and_tail_and_the_whole_can_be_read(relayed: Relayed) -> None:
    client, toolbox, _ = relayed
    result = await call(client, "up_big", n=10_000_000)
    shown = text_of(result)
    assert len(shown) < toolbox.relays.max_text + 200
    assert shown.startswith("0123456789")
    assert shown.endswith("0123456789")
    run = result.meta["io.github.praxis-mcp/run"]["runId"]
    assert f"of 10000000 bytes omitted; the whole is at praxis://runs/{run}/stdout" in shown
    part = await client.read_resource(f"praxis://runs/{run}/stdout?offset=9999990&limit=100")
    assert part.contents[0].model_dump()["text"] == "0123456789"


async def test_text_that_another_server_of_this_kind_has_cut_already_is_not_cut_again(relayed: Relayed) -> None:
    client, toolbox, _ = relayed
    length = toolbox.settings.calls.max_output + 200
    assert len(text_of(await call(client, "up_big", n=length))) == length // 10 * 10


async def test_a_relayed_call_leaves_a_record_and_is_counted(relayed: Relayed) -> None:
    client, toolbox, _ = relayed
    before = dict(toolbox.runner.tally.ended)
    assert (await call(client, "up_fail")).is_error
    record = toolbox.records.entries()[0]
    assert (record.tool, record.engine, record.is_running) == ("up_fail", "upstream:up", False)
    assert await record.read("stdout") == b"it did not work"
    assert record.directory is None, "a short answer needs none"
    counted = ("up_fail", "upstream:up", "failed")
    assert toolbox.runner.tally.ended[counted] == before.get(counted, 0) + 1
    with pytest.raises(MCPError):
        await call(client, "up_refuse")
    assert "no such thing" in (toolbox.records.entries()[0].error or "")
    assert toolbox.runner.tally.ended["up_refuse", "upstream:up", "error"] >= 1


async def test_a_resource_that_a_contracts_remote_tool_links_is_named_as_one_that_cannot_be_read_here(
    tmp_path: Path,
) -> None:
    contract = {"name": "kinds", "engine": "remote-mcp", "engine_spec": {"address": words("stdio"), "tool": "kinds"}}
    (tmp_path / "contract.yaml").write_text(json.dumps(contract))
    async with open_server(settings_for(tmp_path, root=ROOT)) as (_, server), memory_client(server, "modern") as client:
        result = await call(client, "kinds")
    assert [block.type for block in result.content] == ["text", "image", "audio", "resource", "text"]
    assert "linked: note://linked" in result.content[-1].text
    assert "cannot be read through this one" in result.content[-1].text


async def test_an_upstream_killed_during_a_call_costs_that_call_only(relayed: Relayed) -> None:
    client, _, place = relayed
    result = await call(client, "up_die")
    assert result.is_error
    assert "broke while die was running" in text_of(result)
    if place.server is not None:
        await anyio.to_thread.run_sync(place.server.stop)
        down = await call(client, "up_echo", text="x")
        assert down.is_error
        assert "cannot be reached" in text_of(down) or "broke" in text_of(down)
        assert "up_echo" in await names(client), "a tool whose server is down for a moment stays listed"
        await anyio.to_thread.run_sync(place.server.start)

    async def is_back() -> bool:
        return not (await client.call_tool("up_echo", {"text": "back"})).is_error

    await until(is_back, every=0.1)


@pytest.mark.parametrize("era", ERAS)
async def test_tools_that_an_upstream_describes_wrongly_cost_nobody_the_list(tmp_path: Path, era: Era) -> None:
    async with proxy(tmp_path, era, up={"address": words("stdio", "--lie")}) as (client, toolbox):
        page = {tool.name: tool for tool in (await client.list_tools()).tools}
        expected = {f"up_bad_{kind}" for kind in ("root", "none", "type", "required", "ref", "deep", "large", "output")}
        assert expected | {"up_bad_array", "up_bad_words", "up_echo", "up_bad_pattern", "up_bad_parens"} <= page.keys()
        assert all(tool.input_schema["type"] == "object" for tool in page.values())
        assert "x" in page["up_bad_type"].input_schema["properties"]
        assert page["up_bad_pattern"].input_schema["properties"] == {"x": {}}
        assert page["up_bad_parens"].output_schema == {"type": "object", "properties": {"x": {"type": "string"}}}
        assert page["up_bad_output"].output_schema is None
        assert [name for name, _ in toolbox.upstreams.reports()[0].left_out] == ["7", "(no name)", "not a name!"]
        for tool in ("up_lie", "up_silent"):
            result = await call(client, tool)
            assert result.is_error
            assert "output schema" in text_of(result)
        result = await call(client, "up_ahead")
        assert (result.is_error, result.structured_content) == (False, {"email": "a@example.com"})


async def test_a_pattern_that_only_we_cannot_match_stays_in_a_schema() -> None:
    pattern = r"^(?!\.)[a-z.]+@[a-z]+$"
    schema = {"type": "object", "properties": {"email": {"type": "string", "pattern": pattern}}}
    tool = adapt({"name": "whoami", "inputSchema": schema, "outputSchema": schema}, "up", "up_whoami", None)
    assert (tool.input_schema, tool.output_schema, tool.notes) == (schema, schema, ())


async def test_a_defect_that_one_upstream_brings_to_light_costs_no_other_upstream_its_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def broken(raw: Any, upstream: str, name: str, *more: Any) -> RemoteTool:
        if name == "some_echo":
            raise ZeroDivisionError
        return adapt(raw, upstream, name, *more)

    logged: list[str] = []
    sink = logger.add(lambda line: logged.append(str(line)), level="ERROR", format="{message}")
    request.addfinalizer(lambda: logger.remove(sink))
    monkeypatch.setattr(upstream_source, "adapt", broken)
    monkeypatch.setattr(upstream_source, "fnmatchcase", lambda name, glob: {"*": True}[glob])
    address = words("stdio")
    # "no such glob" is what breaks the whole list of the first.
    none = {"address": address, "include": ["no such glob"]}
    async with proxy(tmp_path, none=none, some={"address": address}) as (client, toolbox):
        found = await names(client)
        assert "some_sum" in found
        assert "some_echo" not in found
        first, second = toolbox.upstreams.reports()
        assert "cannot be handled here (KeyError)" in first.trouble
        assert [name for name, why in second.left_out if "ZeroDivisionError" in why] == ["echo"]
    # Once for each time that it is asked, which is again where the other one takes long to start.
    whole = [line for line in logged if line.startswith("the upstream none: its list of tools met a defect")]
    assert whole
    assert all("KeyError" in line for line in whole)
    assert any(line.startswith("echo of the upstream some: what it says of itself met a defect") for line in logged)


async def test_names_are_filtered_renamed_and_described(tmp_path: Path) -> None:
    chosen = {
        "address": words("stdio"),
        "prefix": "",
        "include": ["e*", "s*"],
        "exclude": ["slow"],
        "rename": {"echo": "say"},
        "describe": {"echo": "Repeats."},
    }
    async with proxy(tmp_path, up=chosen) as (client, _):
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["say", "sum"]
        assert tools[0].description == "Repeats."
        assert text_of(await call(client, "say", text="hi")) == "hi"
        with pytest.raises(MCPError, match="no tool"):
            await call(client, "slow")


async def test_clashing_names_go_to_contracts_first_and_then_by_the_name_of_the_upstream(tmp_path: Path) -> None:
    write_sample_tools(tmp_path)
    same = {"prefix": "", "include": ["echo", "about"]}
    first = {"address": words("stdio", "--name", "first"), **same}
    second = {"address": words("stdio", "--name", "second"), **same}
    async with proxy(tmp_path, b_second=second, a_first=first) as (client, toolbox):
        found = await names(client)
        assert found.count("echo") == 1
        assert json.loads(text_of(await call(client, "about")))["name"] == "first"
        assert [name for name, _ in toolbox.upstreams.reports()[1].left_out] == ["about", "echo"]
        listed = {entry.name: entry for entry in toolbox.upstreams.merged_with(toolbox.catalog.entries())}
        assert listed["echo"] is toolbox.catalog.get("echo")


async def test_a_tool_that_is_held_back_is_not_replaced_by_one_of_another_upstream(tmp_path: Path) -> None:
    same = {"prefix": "", "include": ["echo", "about"]}
    first = {"address": words("stdio", "--name", "first"), "pin": True, **same}
    second = {"address": words("stdio", "--name", "second"), **same}
    async with proxy(tmp_path, a_first=first, b_second=second) as (client, toolbox):
        assert await names(client) == []
        assert "held back" in text_of(await call(client, "about"))
        left_out = toolbox.upstreams.reports()[1].left_out
        assert [name for name, why in left_out if "held back" in why] == ["about", "echo"]
        toolbox.upstreams.approve("a_first", ["about"])
        assert await names(client) == ["about"]
        assert json.loads(text_of(await call(client, "about")))["name"] == "first"


async def test_an_upstream_that_is_down_costs_its_own_tools_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy(tmp_path, down={"address": NOWHERE}, up={"address": words("stdio")}) as (client, toolbox):
        assert {name.partition("_")[0] for name in await names(client)} == {"up"}
        assert "cannot be reached" in toolbox.upstreams.reports()[0].trouble
        assert text_of(await call(client, "up_echo", text="fine")) == "fine"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_clients_hear_that_the_tools_of_an_upstream_have_changed(tmp_path: Path, kind: str, era: Era) -> None:
    with upstream_at(kind, era, tmp_path) as place:
        async with proxy(tmp_path, up={"address": place.address}) as (client, _):
            assert "up_extra0" not in await names(client)
            with anyio.fail_after(LIMIT):
                async with client.listen(tools_list_changed=True) as events:
                    await call(client, "up_change")
                    async for _ in events:
                        break
            assert "up_extra0" in await names(client)


async def test_a_tool_that_was_not_approved_or_has_changed_is_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams_module, "APPROVALS_INTERVAL", 0.05)
    pinned = {"address": words("stdio"), "pin": True}
    async with proxy(tmp_path, up=pinned) as (client, toolbox):
        assert await names(client) == []
        result = await call(client, "up_echo", text="x")
        assert "praxis-mcp upstreams approve up" in text_of(result)
        toolbox.upstreams.approve("up", ["echo", "change"])
        assert await names(client) == ["up_change", "up_echo"]
        await call(client, "up_change")
        await until(lambda: toolbox.upstreams.served("up_echo") is None)
        assert await names(client) == ["up_change"]
        assert "held back" in text_of(await call(client, "up_echo", text="x"))
        toolbox.upstreams.approve("up")
        assert "up_extra0" in await names(client)
        assert text_of(await call(client, "up_echo", text="x")) == "x"


async def test_a_call_that_comes_back_to_its_start_is_refused(tmp_path: Path) -> None:
    async with proxy(tmp_path, up={"address": words("stdio")}) as (client, _):
        await names(client)
        hops = {loops.META_KEY: ["some-other-server", loops.server_id()]}
        result = await client.call_tool("up_echo", {"text": "x"}, meta=hops)  # pyright: ignore[reportArgumentType]
        assert result.is_error
        assert "came back to the server that it started from" in text_of(result)
        far = {loops.META_KEY: [str(number) for number in range(loops.MOST_HOPS)]}
        assert "goes no further" in text_of(await client.call_tool("up_echo", {"text": "x"}, meta=far))  # pyright: ignore[reportArgumentType]


async def test_upstreams_learn_which_servers_a_call_came_through(tmp_path: Path) -> None:
    async with proxy(tmp_path, up={"address": words("stdio")}) as (client, _):
        about = json.loads(text_of(await call(client, "up_about")))
        assert about["meta"][loops.META_KEY] == [loops.server_id()]


async def test_a_server_that_starts_itself_ends_at_a_bounded_depth(tmp_path: Path) -> None:
    config = tmp_path / "praxis.yaml"
    command = [sys.executable, "-m", "praxis_mcp", "serve", "--config", str(config), str(tmp_path)]
    config.write_text(f"tools: []\nupstreams:\n  me: {{address: {json.dumps(command)}}}\n")
    depth = str(loops.MOST_HOPS - 1)
    me = {"address": command, "env": {loops.DEPTH_VARIABLE: depth}}
    async with proxy(tmp_path, me=me) as (client, _):
        assert await names(client) == []


async def test_a_chain_of_two_servers_works_and_its_tools_say_where_they_come_from(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tools = tmp_path_factory.mktemp("tools")
    write_sample_tools(tools)
    inner = [sys.executable, "-m", "praxis_mcp", "serve", str(tools)]
    env = {"PRAXIS_ENGINES__LOCAL__SANDBOX": "off"}
    async with proxy(tmp_path, far={"address": inner, "env": env}) as (client, toolbox):
        await until(lambda: toolbox.upstreams.served("far_echo"))
        assert "far_echo" in await names(client)
        tool = toolbox.upstreams.served("far_echo")
        assert tool is not None
        assert len(tool.via) == 1


def test_a_tool_of_this_server_that_comes_back_in_a_circle_is_dropped() -> None:
    raw = {"name": "a_echo", "inputSchema": {"type": "object"}}
    back = {**raw, "_meta": {loops.VIA_KEY: ["other", loops.server_id()]}}
    with pytest.raises(Unusable, match="circle"):
        adapt(back, "b", "b_a_echo", None)
    far = {**raw, "_meta": {loops.VIA_KEY: [str(number) for number in range(loops.MOST_HOPS)]}}
    with pytest.raises(Unusable, match="through 8 servers"):
        adapt(far, "b", "b_a_echo", None)


@pytest.fixture
def held_ports() -> Iterator[tuple[int, int]]:
    with held_port() as one, held_port() as other:
        yield one, other


async def test_two_servers_that_republish_each_other_settle_and_list_nothing_in_a_circle(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, held_ports: tuple[int, int]
) -> None:
    ports = {"left": held_ports[0], "right": held_ports[1]}
    others = {"left": "right", "right": "left"}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, other in others.items():
            directory = tmp_path_factory.mktemp(name)
            write_tool(directory, f"of_{name}", ["true"])
            settings = {
                "tools": [str(directory)],
                "upstreams": {other: {"address": f"http://127.0.0.1:{ports[other]}/mcp", "refresh": 1}},
            }
            config = directory / "praxis.yaml"
            config.write_text(json.dumps(settings))
            command = [sys.executable, "-m", "praxis_mcp", "serve", "--http", "--port", str(ports[name])]
            processes.append(subprocess.Popen([*command, "--config", str(config)], cwd=tmp_path))
        found: dict[str, list[str]] = {}

        async def each_has_both() -> bool:
            with suppress(Exception):  # not listening yet
                for name in others:
                    async with Client(f"http://127.0.0.1:{ports[name]}/mcp", cache=None) as client:
                        found[name] = await names(client)
            return found == {"left": ["of_left", "right_of_right"], "right": ["left_of_left", "of_right"]}

        await until(each_has_both, within=2 * LIMIT, every=0.2)
        async with Client(f"http://127.0.0.1:{ports['left']}/mcp", cache=None) as client:
            assert not (await call(client, "right_of_right")).is_error
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            await anyio.to_thread.run_sync(process.wait)
