"""How many calls run at once, and how many may wait."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from praxis_mcp.errors import QueueFull
from praxis_mcp.execution.admission import Admission, Share
from praxis_mcp.settings.sections import CallSettings

pytestmark = pytest.mark.anyio


async def hold(admission: Admission, tool: str, started: anyio.Event, release: anyio.Event) -> None:
    async with admission.slot(tool):
        started.set()
        await release.wait()


async def test_no_more_calls_run_at_once_than_the_settings_say() -> None:
    admission = Admission(CallSettings(max_concurrency=3, max_concurrency_per_tool=3))
    most = 0

    async def one(number: int) -> None:
        nonlocal most
        async with admission.slot(f"tool{number % 5}"):
            most = max(most, admission.running)
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(one, number)
    assert most == 3
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_burst_of_one_tool_does_not_hold_back_another() -> None:
    admission = Admission(CallSettings(max_concurrency=4, max_concurrency_per_tool=1))
    release = anyio.Event()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            first = anyio.Event()
            tasks.start_soon(hold, admission, "busy", first, release)
            await first.wait()
            for _ in range(10):
                tasks.start_soon(hold, admission, "busy", anyio.Event(), release)
            other = anyio.Event()
            tasks.start_soon(hold, admission, "other", other, release)
            await other.wait()
            release.set()


async def test_a_call_that_would_overfill_the_queue_is_refused_at_once() -> None:
    admission = Admission(CallSettings(max_concurrency=1, max_queue=0))
    release, started = anyio.Event(), anyio.Event()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold, admission, "a", started, release)
            await started.wait()
            with pytest.raises(QueueFull, match="Try again"):
                async with admission.slot("b"):
                    pass
            release.set()
        async with admission.slot("b"):
            assert admission.running == 1


async def test_a_cancelled_waiter_gives_its_place_back() -> None:
    admission = Admission(CallSettings(max_concurrency=1))
    release, started = anyio.Event(), anyio.Event()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold, admission, "a", started, release)
            await started.wait()
            async with anyio.create_task_group() as waiters:
                waiters.start_soon(hold, admission, "b", anyio.Event(), release)
                while not admission.waiting:
                    await anyio.lowlevel.checkpoint()
                waiters.cancel_scope.cancel()
            assert admission.waiting == 0
            release.set()
        async with admission.slot("b"):
            assert admission.running == 1


async def test_a_contracts_own_limit_wins() -> None:
    admission = Admission(CallSettings(max_concurrency=8, max_concurrency_per_tool=1, max_queue=0))
    async with admission.slot("t", 2), admission.slot("t", 2):
        with pytest.raises(QueueFull):
            async with admission.slot("t", 2):
                pass


async def test_a_share_is_half_of_the_places_and_of_the_queue_and_leaves_the_rest_to_others() -> None:
    admission = Admission(CallSettings(max_concurrency=4, max_queue=4))
    up, other = Share("up", "calls of up"), Share("other", "calls of other")
    release = anyio.Event()

    async def of_up(number: int) -> None:
        async with admission.slot(f"up_{number}", shares=[up]):
            await release.wait()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(of_up, number)
            while (admission.running, admission.waiting) != (2, 2):
                await anyio.lowlevel.checkpoint()
            with pytest.raises(QueueFull, match="half of the queue"):
                async with admission.slot("up_more", shares=[up]):
                    pass
            async with admission.slot("other", shares=[other]), admission.slot("local"):
                assert admission.running == 4
            release.set()
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_call_that_waits_for_its_tool_keeps_no_place_of_its_share() -> None:
    admission = Admission(CallSettings(max_concurrency=4, max_concurrency_per_tool=1))
    share, release = Share("ann", "of your calls"), anyio.Event()

    async def call(tool: str) -> None:
        async with admission.slot(tool, shares=[share]):
            await release.wait()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(call, "busy")
            await anyio.wait_all_tasks_blocked()
            async with admission.slot("idle", shares=[share]):
                assert (admission.running, admission.waiting) == (2, 2)
            release.set()


async def test_a_call_that_is_cancelled_just_as_its_turn_comes_gives_its_place_to_the_next() -> None:
    admission = Admission(CallSettings(max_concurrency=1))
    order: list[str] = []

    async def call(name: str) -> None:
        async with admission.slot(name):
            order.append(name)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            async with admission.slot("first"):
                unlucky = asyncio.create_task(call("unlucky"))
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(call, "next")
                await anyio.wait_all_tasks_blocked()
            unlucky.cancel()  # a scope would let it begin
            with pytest.raises(asyncio.CancelledError):
                await unlucky
    assert order == ["next"]
    assert (admission.running, admission.waiting) == (0, 0)
