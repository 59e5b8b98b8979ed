"""The remote-mcp engine against real servers: over stdio, Streamable HTTP and HTTP+SSE, in both protocol eras."""

import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.engines.remote import RemoteMCPEngine
from praxis_mcp.errors import ArgumentError, ContractError, EngineUnavailable, ExecutionError, RemoteError
from praxis_mcp.settings.model import Settings
from praxis_mcp.upstreams import connection as upstream_connection
from praxis_mcp.upstreams.transports import http as upstream_http
from praxis_mcp.upstreams.transports import stdio as upstream_stdio
from tests.kit.ports import held_port
from tests.kit.until import until
from tests.kit.upstreams import ERAS, ROOT, TRANSPORTS, Place, http_server, upstream_at, words

pytestmark = pytest.mark.anyio

LIMIT = 60.0


@pytest.fixture(scope="module", params=[(kind, era) for kind in TRANSPORTS for era in ERAS], ids="-".join)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    kind, era = request.param
    with upstream_at(kind, era, tmp_path_factory.mktemp("upstream")) as found:
        yield found


@pytest.fixture(scope="module")
async def engine(anyio_backend: str) -> AsyncIterator[RemoteMCPEngine]:
    async with RemoteMCPEngine(Settings(root=ROOT)) as engine:
        yield engine


def contract(address: Any, tool: str, *, parameters: dict[str, Any] | None = None, **fields: Any) -> ToolContract:
    """A contract for a tool elsewhere; its parameters are those of the test server's tools."""
    known = {"text": "string", "n": "integer", "seconds": "number", "a": "number", "b": "number"}
    spec = {"address": address, "tool": tool, "timeout": 20}
    spec |= {key: fields.pop(key) for key in list(fields) if key in ("timeout", "headers", "auth_token", "env")}
    declared = [{"name": name, "type": kind} for name, kind in (parameters or known).items()]
    return ToolContract.model_validate(
        {"name": f"remote_{tool}", "engine": "remote-mcp", "engine_spec": spec, "parameters": declared, **fields}
    )


async def run(
    engine: RemoteMCPEngine, found: ToolContract, context: ExecutionContext | None = None, **arguments: Any
) -> ExecutionResult:
    with anyio.fail_after(LIMIT):
        return await engine.execute(found, arguments, context)


async def test_a_contract_is_validated_without_reaching_its_server(engine: RemoteMCPEngine) -> None:
    assert await engine.validate_contract(contract("http://127.0.0.1:9/mcp", "echo"))
    secret = {"secret": "NO_SUCH_VARIABLE_HERE"}
    with pytest.raises(ContractError, match="NO_SUCH_VARIABLE_HERE"):
        await engine.validate_contract(contract("http://127.0.0.1:9/mcp", "echo", headers={"X-Key": secret}))
    image = ToolContract.create_dagger_tool("boxed", "busybox:1.36", ["true"])
    with pytest.raises(ContractError, match="cannot enforce container images"):
        await engine.validate_contract(image)


async def test_a_call_comes_back_with_its_text(engine: RemoteMCPEngine, place: Place) -> None:
    result = await run(engine, contract(place.address, "echo"), text="héllo\n  there")
    assert (result.exit_code, result.output, result.isolation) == (0, "héllo\n  there", "remote")


async def test_content_of_every_kind_comes_back_as_it_was_sent(engine: RemoteMCPEngine, place: Place) -> None:
    result = await run(engine, contract(place.address, "kinds"))
    assert result.remote is not None
    assert [block["type"] for block in result.remote.blocks] == ["text", "image", "audio", "resource", "resource_link"]
    assert result.remote.blocks[3]["resource"]["text"] == "embedded"
    assert result.remote.blocks[4]["uri"] == "note://linked"
    assert result.remote.meta == {"com.example/kept": 1}


async def test_structured_output_comes_back(engine: RemoteMCPEngine, place: Place) -> None:
    result = await run(engine, contract(place.address, "sum"), a=1, b=2)
    assert result.remote is not None
    assert result.remote.structured == {"sum": 3}


async def test_an_answer_that_says_it_is_an_error_is_a_failed_run(engine: RemoteMCPEngine, place: Place) -> None:
    result = await run(engine, contract(place.address, "fail"))
    assert (result.exit_code, result.success, result.output) == (1, False, "it did not work")


async def test_a_protocol_error_names_its_code_and_data(engine: RemoteMCPEngine, place: Place) -> None:
    with pytest.raises(RemoteError, match="no such thing") as caught:
        await run(engine, contract(place.address, "refuse"))
    assert (caught.value.code, caught.value.data) == (-32602, {"hint": 7})


@pytest.mark.parametrize("code", [-32000, -32001, -32603, 5031, 5021, 4011])
async def test_an_error_of_any_code_is_the_servers_and_costs_no_connection(
    engine: RemoteMCPEngine, place: Place, code: int
) -> None:
    about = contract(place.address, "about", max_output="1Mi")
    before = json.loads((await run(engine, about)).output)["pid"]
    calls = place.noted().count("called limit")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, engine, contract(place.address, "hang"))  # ends by an error if its connection does
        with pytest.raises(RemoteError, match="Rate limited") as caught:
            await run(engine, contract(place.address, "limit"), n=code)
        assert (caught.value.code, caught.value.data) == (code, {"retry": 5})
        assert json.loads((await run(engine, about)).output)["pid"] == before
        tasks.cancel_scope.cancel()
    assert place.noted().count("called limit") == calls + 1


async def test_progress_is_received_in_numbers_and_words(engine: RemoteMCPEngine, place: Place) -> None:
    heard: list[tuple[str, bytes]] = []
    context = ExecutionContext(on_output=lambda stream, data: heard.append((stream, data)))
    result = await run(engine, contract(place.address, "progress"), context, seconds=0)
    reports = [json.loads(data) for stream, data in heard if stream == "stderr"]
    assert reports == [{"progress": n, "total": 3, "message": f"step {n}"} for n in (1, 2, 3)]
    assert result.stderr.total == 0


async def test_ten_megabytes_come_back_whole(engine: RemoteMCPEngine, place: Place) -> None:
    result = await run(engine, contract(place.address, "big"), n=10_000_000)
    assert result.remote is not None
    assert result.remote.blocks[0]["text"] == "0123456789" * 1_000_000
    assert result.stdout.total == 10_000_000
    assert len(result.stdout.data) <= 32 * 1024


async def test_an_answer_over_http_is_bounded_too(engine: RemoteMCPEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_http, "MAX_UPSTREAM_MESSAGE", 1024 * 1024)
    with http_server() as server:
        address = server.url("http")
        with pytest.raises(ExecutionError, match="more than 1048576 bytes"):
            await run(engine, contract(address, "big"), n=2_000_000)
        assert (await run(engine, contract(address, "echo"), text="back")).output == "back"


async def test_a_line_of_a_command_is_bounded_and_the_error_names_the_bound(
    engine: RemoteMCPEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_stdio, "MAX_UPSTREAM_MESSAGE", 1024 * 1024)
    found = contract(words("stdio", "--name", "bounded"), "big")
    assert (await run(engine, found, n=1_000_000)).stdout.total == 1_000_000
    with pytest.raises(ExecutionError, match="a message of more than 1 MiB"):
        await run(engine, found, n=2_000_000)
    assert (await run(engine, found, n=10)).output == "0123456789"


async def test_an_argument_that_no_utf8_can_carry_costs_nothing_but_its_own_call(
    engine: RemoteMCPEngine, place: Place
) -> None:
    with anyio.fail_after(LIMIT):
        with suppress(ExecutionError, ArgumentError):  # refused by one of the two sides, or never answered
            await engine.execute(contract(place.address, "echo", timeout=2), {"text": "half \ud800 of a pair"})
    assert (await run(engine, contract(place.address, "echo"), text="well")).output == "well"


async def test_a_call_that_takes_too_long_is_cancelled_there(engine: RemoteMCPEngine, place: Place) -> None:
    def noted(what: str) -> int:
        return place.noted().count(f"{what} hang")

    called, cancelled = noted("called"), noted("cancelled")
    for timeout in (0.3, 3.0, 30.0):  # on a busy machine the first is over before the tool has begun there
        result = await run(engine, contract(place.address, "hang", timeout=timeout))
        assert (result.timed_out, result.exit_code) == (True, None)
        if noted("called") > called:
            break
    await until(lambda: noted("cancelled") - cancelled == noted("called") - called > 0)


async def test_cancelling_a_call_cancels_it_there(engine: RemoteMCPEngine, place: Place) -> None:
    calls, cancelled = place.noted().count("called hang"), place.noted().count("cancelled hang")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, engine, contract(place.address, "hang"))
        await until(lambda: place.noted().count("called hang") == calls + 1)
        tasks.cancel_scope.cancel()
    await until(lambda: place.noted().count("cancelled hang") == cancelled + 1)
    assert (await run(engine, contract(place.address, "echo"), text="still here")).output == "still here"


async def test_a_server_killed_during_a_call_is_an_error_and_not_run_again(
    engine: RemoteMCPEngine, place: Place
) -> None:
    await run(engine, contract(place.address, "echo"), text="warm")
    calls = place.noted().count("called die")
    with pytest.raises(ExecutionError, match="broke while die was running") as caught:
        await run(engine, contract(place.address, "die"))
    assert not isinstance(caught.value, EngineUnavailable)
    assert place.noted().count("called die") == calls + 1
    if place.server is not None:
        place.server.stop()
        place.server.start()
    assert (await run(engine, contract(place.address, "echo"), text="back")).output == "back"


async def test_a_server_restarted_between_calls_is_found_again(engine: RemoteMCPEngine, place: Place) -> None:
    if place.server is None:
        pytest.skip("a command has no life of its own")
    await run(engine, contract(place.address, "echo"), text="warm")
    await anyio.to_thread.run_sync(place.server.stop)
    await anyio.to_thread.run_sync(place.server.start)
    assert (await run(engine, contract(place.address, "echo"), text="again")).output == "again"


async def test_a_server_that_hangs_is_left_and_started_again(
    engine: RemoteMCPEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_connection, "ALIVE_TIMEOUT", 0.5)
    for timeout in (0.5, 5.0, 30.0):  # on a busy machine the first is over before the server has come to hang
        (tmp_path / str(timeout)).mkdir()
        with upstream_at("stdio", "modern", tmp_path / str(timeout)) as place:
            await run(engine, contract(place.address, "echo"), text="warm")
            assert (await run(engine, contract(place.address, "freeze", timeout=timeout))).timed_out
            if "called freeze" not in place.noted():
                continue
            with pytest.raises(ExecutionError, match="it hangs"):
                await run(engine, contract(place.address, "echo"), text="x")
            assert (await run(engine, contract(place.address, "echo"), text="x")).output == "x"
            return
    raise AssertionError("it was never called")


async def test_many_calls_at_once_share_one_server(engine: RemoteMCPEngine, place: Place) -> None:
    results: list[str] = []

    async def one(number: int) -> None:
        results.append((await run(engine, contract(place.address, "echo"), text=str(number))).output)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(one, number)
    assert sorted(results, key=int) == [str(number) for number in range(50)]
    first, second = [
        json.loads((await run(engine, contract(place.address, "about", max_output="1Mi"))).output) for _ in range(2)
    ]
    assert first["pid"] == second["pid"]


async def test_a_command_gets_only_the_environment_that_it_needs_and_is_given(
    engine: RemoteMCPEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "hunter2")
    monkeypatch.setenv("GIVEN", "s3cr3t-value")
    found = contract(words("stdio"), "about", env={"TOKEN": {"secret": "GIVEN"}, "MODE": "test"}, max_output="1Mi")
    result = await run(engine, found)
    environment = json.loads(result.output)["environment"]
    assert "SOME_PASSWORD" not in environment
    assert environment["MODE"] == "test"
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["TOKEN"] == "***", "a secret that comes back is masked"


async def test_a_command_that_does_not_exist_says_so(engine: RemoteMCPEngine) -> None:
    with pytest.raises(EngineUnavailable, match="there is no /nonexistent/server"):
        await run(engine, contract(["/nonexistent/server"], "echo"))


async def test_a_command_that_fails_shows_what_it_wrote(engine: RemoteMCPEngine) -> None:
    source = "import sys; sys.exit('no module named fortune')"
    with pytest.raises(EngineUnavailable, match=r"closed the connection|Connection closed") as caught:
        await run(engine, contract([sys.executable, "-c", source], "echo"))
    assert caught.value.output is not None
    assert "no module named fortune" in caught.value.output


async def test_a_token_opens_the_door_and_a_wrong_one_says_so(
    engine: RemoteMCPEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOOR", "open-sesame")
    monkeypatch.setenv("WRONG", "open-barley")
    with http_server("--token", "open-sesame") as server:
        for kind in ("http", "sse"):
            good = contract(server.url(kind), "about", auth_token={"secret": "DOOR"}, max_output="1Mi")
            headers = json.loads((await run(engine, good)).output)["headers"]
            assert headers["authorization"] == "Bearer ***"
            with pytest.raises(EngineUnavailable, match=r"refused .*HTTP 401") as caught:
                await run(engine, contract(server.url(kind), "echo", auth_token={"secret": "WRONG"}), text="x")
            assert "open-barley" not in str(caught.value)


async def test_a_server_that_is_down_is_refused_at_once_after_some_tries(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_port() as port:
        address = f"http://127.0.0.1:{port}/mcp"
        async with RemoteMCPEngine(Settings(root=ROOT)) as engine:
            for number in range(upstream_connection.THRESHOLD):
                if number == upstream_connection.THRESHOLD - 1:  # the next try is not due before the end of this test
                    monkeypatch.setattr(upstream_connection, "LONGEST_DELAY", 1000.0)
                    monkeypatch.setattr(upstream_connection, "FIRST_DELAY", 1000.0)
                with pytest.raises(EngineUnavailable, match="cannot be reached"):
                    await run(engine, contract(address, "echo"), text="x")
            with socket.create_server(("127.0.0.1", port)) as listening:
                listening.setblocking(False)
                with pytest.raises(EngineUnavailable, match=re.escape(address) + ".*refused without trying"):
                    await run(engine, contract(address, "echo"), text="x")
                with pytest.raises(BlockingIOError):
                    listening.accept()


async def test_nothing_is_left_when_the_engine_closes(tmp_path: Path) -> None:
    with upstream_at("stdio", "modern", tmp_path) as place:
        async with RemoteMCPEngine(Settings(root=ROOT)) as engine:
            about = await run(engine, contract(place.address, "about", max_output="1Mi"))
            pid = json.loads(about.output)["pid"]
        assert not Path(f"/proc/{pid}").exists()


async def test_an_engine_can_be_used_without_being_entered_and_again_after_cleanup(tmp_path: Path) -> None:
    engine = EngineRegistry(Settings(root=ROOT)).get("remote-mcp")
    assert isinstance(engine, RemoteMCPEngine)
    with upstream_at("stdio", "modern", tmp_path) as place:
        for text in ("one", "two"):
            assert (await run(engine, contract(place.address, "echo"), text=text)).output == text
            await engine.cleanup()


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"address": "upstream.example/mcp"}, "http://"),
        ({"address": ["server"], "headers": {"X": "y"}}, "credentials by env"),
        ({"address": ["server"], "transport": "http"}, "needs a URL"),
        ({"address": "https://x.example", "env": {"A": "b"}}, "Env goes with a command"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        ToolContract.model_validate({"name": "x", "engine": "remote-mcp", "engine_spec": spec})
