"""What happens to a pod in the middle of its call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.kubernetes import client
from praxis_mcp.engines.warm import pool
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.build import build_plan
from tests.engines.kubernetes.doubled import Doubled, doubled, hello
from tests.kit.until import WITHIN, until
from tests.kubernetes_double import Cut, DoublePod

pytestmark = [pytest.mark.anyio, pytest.mark.native]

BEGUN = "begun\n"


def endless(place: Path, **fields: Any) -> ToolContract:
    """A tool that notes that it runs, says so, and does not end."""
    command = ["sh", "-c", f"echo ran >>{place}/ran; echo begun; exec sleep 3600"]
    return hello(command=command, timeout=3000.0, **{"memory_limit": "64m", **fields})


async def call_that_meets(
    on: Doubled, place: Path, happens: Callable[[DoublePod], Awaitable[object] | None], **fields: Any
) -> ExecutionResult | ExecutionError:
    """What comes of a call that something happens to when its tool runs; which it does once."""
    begun = anyio.Event()
    said = bytearray()

    def listen(_: str, data: bytes) -> None:
        said.extend(data)
        begun.set()

    async def happen() -> None:
        await begun.wait()
        (pod,) = on.double.pods.values()
        outcome = happens(pod)
        if outcome is not None:
            await outcome

    found: ExecutionResult | ExecutionError | None = None
    with anyio.fail_after(2 * WITHIN):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(happen)
            plan = build_plan(endless(place, **fields), {}, on.engine.settings)
            try:
                found = await on.engine.run(plan, ExecutionContext(on_output=listen))
            except ExecutionError as exc:
                found = exc
    assert found is not None
    assert said.decode() == BEGUN
    assert (place / "ran").read_text() == "ran\n"
    assert len(on.double.pods) == 1
    return found


def says_that_it_may_have_run(found: ExecutionResult | ExecutionError) -> str:
    assert isinstance(found, ExecutionError)
    assert "It may have run" in found.message
    assert found.remedy
    return found.message


async def test_a_pod_that_runs_out_of_memory_ends_the_tool_whatever_its_exit_code_says(tmp_path: Path) -> None:
    async def out_of_memory(pod: DoublePod) -> None:
        await pod.stop()
        pod.terminate(0, "OOMKilled")

    async with doubled(tmp_path) as on:
        on.double.life = lives_until_told
        found = await call_that_meets(on, tmp_path, out_of_memory)
        assert isinstance(found, ExecutionResult)
        assert not found.success
        assert found.out_of_memory
        assert found.output == BEGUN


@pytest.mark.parametrize("memory", ["64m", None])
async def test_a_pod_that_is_evicted_in_mid_call_is_not_the_tools_own_end(tmp_path: Path, memory: str | None) -> None:
    async def evict(pod: DoublePod) -> None:
        target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        await pod.stop()
        pod.terminate(0, conditions=[{**target, "message": "Eviction API: evicting"}])

    async with doubled(tmp_path) as on:
        on.double.life = lives_until_told
        found = await call_that_meets(on, tmp_path, evict, memory_limit=memory)
        assert "its pod was evicted before the call ended (EvictionByEvictionAPI: Eviction API" in (
            says_that_it_may_have_run(found)
        )


async def test_a_pod_that_somebody_removes_in_mid_call_is_not_the_tools_own_end(tmp_path: Path) -> None:
    async with doubled(tmp_path) as on:
        found = await call_that_meets(on, tmp_path, DoublePod.delete)
        assert "its pod was removed before the call ended" in says_that_it_may_have_run(found)


async def test_a_node_that_puts_a_pod_out_without_removing_it_is_not_the_tools_own_end(tmp_path: Path) -> None:
    async def put_out(pod: DoublePod) -> None:
        await pod.stop()
        pod.report(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")

    async with doubled(tmp_path) as on:
        on.double.life = lives_until_told
        found = await call_that_meets(on, tmp_path, put_out)
        assert "evicted before the call ended (Evicted: The node was low" in says_that_it_may_have_run(found)


async def test_a_tool_that_is_killed_in_a_pod_that_stays_has_ended_so_itself(tmp_path: Path) -> None:
    async with doubled(tmp_path) as on:
        result = await on.engine.execute(hello(command=["sh", "-c", "kill -9 $$"]), {})
        assert (result.exit_code, result.out_of_memory) == (137, False)


async def test_what_runs_in_a_pod_ends_with_its_call_and_the_pod_is_removed_when_calls_leave_time_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QUIET", "MOST_QUIET"):
        monkeypatch.setattr(pool, name, 3600.0)
    monkeypatch.setattr(pool, "USUAL_FILL", 3600.0)
    monkeypatch.setattr(pool, "POOL_CLOSE_TIMEOUT", 0.1)
    async with doubled(tmp_path, empties=False) as on:
        assert await on.call() == "hello\n"
        (name,) = on.double.pods
        await until(lambda: not on.double.pods[name].runs, what="the end of what ran")
        assert "deletionTimestamp" not in on.double.store.get("pods", name)["metadata"]


async def test_an_answer_does_not_wait_for_an_api_server_that_is_away(tmp_path: Path) -> None:
    async with doubled(tmp_path) as on:
        said = says_that_it_may_have_run(await call_that_meets(on, tmp_path, lambda pod: on.double.end()))
        assert said
        assert on.double.store.names("pods"), "nobody could remove it"
        await on.double.begin()


async def test_a_way_that_freezes_fails_the_call_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PING_EVERY", 1.0)
    monkeypatch.setattr(client, "PING_TIMEOUT", 10.0)
    frozen = asyncio.Event()
    async with doubled(tmp_path) as on:
        on.double.on_forward = lambda pod: Cut(freeze=frozen)
        assert says_that_it_may_have_run(await call_that_meets(on, tmp_path, lambda pod: frozen.set()))


async def lives_until_told(pod: DoublePod) -> None:
    """The life of a pod whose end the test reports."""
    await pod.start()
    pod.report(phase="Running", state={"running": {}})
