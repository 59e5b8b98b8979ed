"""What the daemon refuses, at whatever moment, reaches a caller as one of our errors, or does not matter."""

import re
from collections.abc import AsyncIterator

import pytest

from praxis_mcp.errors import EngineUnavailable, ExecutionError
from praxis_mcp.testing.bench import Bench, past_its_deadline
from tests.engines.docker.bench import BUSYBOX, LATE, bench_on, tool
from tests.engines.docker.case import CASE, containers
from tests.upstreams.relay import Relay, relay

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
async def front() -> AsyncIterator[Relay]:
    async with relay() as front:
        yield front


@pytest.fixture
async def bench(front: Relay) -> AsyncIterator[Bench]:
    async with bench_on(host=front.address) as bench:
        yield bench
    front.refused.clear()
    assert CASE.leftovers() == []


@pytest.mark.native
async def test_a_tool_whose_kill_is_refused_at_its_deadline_is_ended_from_within(bench: Bench, front: Relay) -> None:
    front.refused[r"POST .*/kill"] = 500
    result = await past_its_deadline(lambda seconds: bench.run(tool(LATE, timeout=seconds)), "begun\n")
    assert (result.timed_out, result.output) == (True, "begun\n")


async def test_how_a_tool_ended_is_known_even_where_its_container_cannot_be_looked_at(
    bench: Bench, front: Relay
) -> None:
    front.refused[r"GET .*/containers/\w{64}/json"] = 404
    result = await bench.run(tool("echo said; exit 3", memory_limit="64m"))
    assert (result.exit_code, result.out_of_memory, result.output) == (3, False, "said\n")


@pytest.mark.parametrize("step", ["create", r"\w{64}/attach", r"\w{64}/wait", r"\w{64}/start"])
@pytest.mark.parametrize(("status", "error"), [(500, ExecutionError), (503, ExecutionError)])
async def test_a_call_that_is_refused_fails_with_the_daemons_words_and_leaves_nothing(
    bench: Bench, front: Relay, step: str, status: int, error: type[Exception]
) -> None:
    front.refused[rf"POST .*/containers/{step}"] = status
    contract = tool("true")
    plan = bench.plan(contract)
    with pytest.raises(error, match=f"refused by the test with {status}"):
        await bench.run_plan(plan)
    assert containers(f"praxis-mcp.run={plan.call.run_id}") == []


async def test_a_look_for_leftovers_that_is_refused_fails_as_the_engine_being_unavailable(
    bench: Bench, front: Relay
) -> None:
    front.refused[r"GET .*/containers/json"] = 500
    with pytest.raises(EngineUnavailable, match="refused by the test with 500"):
        await bench.engine.reap()


async def test_preparing_an_image_that_is_refused_fails_so_too(bench: Bench, front: Relay) -> None:
    front.refused[rf"GET .*/images/{re.escape(BUSYBOX)}/json"] = 500
    with pytest.raises(EngineUnavailable, match="refused by the test with 500"):
        await bench.engine.prepare(bench.plan(tool("true")).blueprint)


async def test_a_daemon_that_is_paused_is_unavailable_and_says_why(bench: Bench, front: Relay) -> None:
    front.refused["."] = 503
    status = await bench.engine.probe()
    assert (status.available, bool(status.remedy)) == (False, True)
    assert "refused by the test with 503" in status.detail
    with pytest.raises(EngineUnavailable, match="refused by the test with 503"):
        await bench.engine.get_capabilities()
    front.refused.clear()
    assert (await bench.engine.probe()).available
