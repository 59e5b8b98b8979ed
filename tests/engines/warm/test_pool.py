"""The pool by itself: how many wait, for what, until when; what waits here are plain objects."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest

from praxis_mcp.engines.warm import pool as warm_pool
from praxis_mcp.engines.warm.pool import WAITING_MEMORY, WarmBudget, WarmPool
from praxis_mcp.settings.sections import WarmSettings
from tests.kit.until import until

pytestmark = pytest.mark.anyio


class Item:
    def __init__(self, key: str) -> None:
        self.key = key
        self.fresh = True
        self.discarded = False

    def is_fresh(self) -> bool:
        return self.fresh

    async def discard(self) -> None:
        self.discarded = True


class Shop:
    """A pool, and what it has made."""

    def __init__(self, settings: WarmSettings, budget: WarmBudget | None, fills_at_once: int = 1) -> None:
        self.made: list[Item] = []
        self.broken = False
        self.gate: anyio.Event | None = None
        self.making = 0
        self.pool: WarmPool[str, Item] = WarmPool(settings, self._make, (OSError,), budget, fills_at_once=fills_at_once)

    async def _make(self, key: str) -> Item:
        self.making += 1
        try:
            await (self.gate.wait() if self.gate is not None else anyio.lowlevel.checkpoint())
        finally:
            self.making -= 1
        if self.broken:
            raise OSError("broken")
        self.made.append(Item(key))
        return self.made[-1]

    @contextmanager
    def calls(self, key: str, number: int = 1) -> Iterator[list[Item | None]]:
        """So many calls at once."""
        with ExitStack() as stack:
            yield [stack.enter_context(self.pool.demand(key)) for _ in range(number)]

    def waiting(self, key: str | None = None) -> int:
        return len([item for item in self.pool.waiting if key in (None, item.key)])

    async def settled(self) -> None:
        """Long enough for the pool to do more, if it were to."""
        for _ in range(5):
            await anyio.sleep(warm_pool.QUIET)
            await anyio.wait_all_tasks_blocked()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_pool, "QUIET", 0.005)
    monkeypatch.setattr(warm_pool, "POOL_CHECK_INTERVAL", 0.02)
    monkeypatch.setattr(warm_pool, "RETRY_AFTER", 0.02)


@asynccontextmanager
async def shop(budget: WarmBudget | None = None, fills_at_once: int = 1, **settings: Any) -> AsyncIterator[Shop]:
    opened = Shop(WarmSettings(**settings), budget, fills_at_once)
    try:
        yield opened
    finally:
        with anyio.fail_after(60):
            await opened.pool.close()


async def test_nothing_waits_before_the_first_call_and_one_after_it() -> None:
    async with shop() as one:
        await one.settled()
        assert one.made == []
        with one.calls("a") as got:
            assert got == [None]
        await until(lambda: one.waiting("a") == 1)
        await one.settled()
        assert one.waiting() == 1


async def test_what_waited_is_given_once_and_another_takes_its_place() -> None:
    async with shop() as one:
        with one.calls("a"):
            pass
        await until(lambda: one.waiting("a") == 1)
        with one.calls("a") as (first,):
            assert first is one.made[0]
        await until(lambda: one.waiting("a") == 1)
        with one.calls("a") as (second,):
            assert second is one.made[1]
        assert (one.pool.metrics.hits, one.pool.metrics.misses) == (2, 1)
        assert not one.made[0].discarded


async def test_as_many_wait_as_ran_at_once_up_to_the_bound_for_a_tool() -> None:
    async with shop(max_per_tool=3) as one:
        with one.calls("a", 2):
            pass
        await until(lambda: one.waiting("a") == 2)
        await one.settled()
        assert one.waiting() == 2
        with one.calls("a", 9):
            pass
        await until(lambda: one.waiting("a") == 3)
        await one.settled()
        assert one.waiting() == 3


async def test_for_calls_that_begin_at_once_elsewhere_none_is_made_before_there_is_time_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warm_pool, "MOST_QUIET", 0.01)
    monkeypatch.setattr(warm_pool, "USUAL_FILL", 3600.0)
    monkeypatch.setattr(warm_pool, "MOST_FILL", 3600.0)
    async with shop() as one:
        with one.calls("a", 2):
            one.pool.spare("a")
        await one.settled()
        assert one.made == []


async def test_once_no_call_came_for_as_long_as_making_one_takes_as_many_wait_as_ran_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warm_pool, "USUAL_FILL", 0.05)
    async with shop(idle_seconds=60) as one:
        with one.calls("a", 3):
            one.pool.spare("a")
        await until(lambda: one.waiting("a") == 3)
        with one.calls("a") as (met,):
            assert met is one.made[0]


async def test_what_is_made_fast_waits_soon_after_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUIET", "MOST_QUIET"):
        monkeypatch.setattr(warm_pool, name, 3600.0)
    monkeypatch.setattr(warm_pool, "USUAL_FILL", 0.001)
    async with shop() as one:
        with one.calls("a"):
            pass
        await until(lambda: one.waiting("a") == 1)


async def test_quiet_is_no_longer_than_a_share_of_what_making_one_takes_and_waited_for_no_longer_than_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warm_pool, "USUAL_FILL", 1.0)
    monkeypatch.setattr(warm_pool, "MOST_QUIET", 3600.0)
    async with shop(enabled=False) as one:
        await one.pool.wait_for_quiet()  # there was no call
        with one.calls("a"), anyio.fail_after(60):
            begun = time.monotonic()
            await one.pool.wait_for_quiet()
            assert time.monotonic() - begun > 0.05
        monkeypatch.setattr(warm_pool, "USUAL_FILL", 36000.0)
        monkeypatch.setattr(warm_pool, "MOST_QUIET", 0.01)
        with one.calls("a"), anyio.fail_after(60):
            await one.pool.wait_for_quiet()


async def test_a_burst_above_the_pool_gets_what_there_is() -> None:
    async with shop() as one:
        with one.calls("a", 2):
            pass
        await until(lambda: one.waiting("a") == 2)
        with one.calls("a", 5) as got:
            assert [item is not None for item in got] == [True, True, False, False, False]


async def test_the_key_called_longest_ago_gives_way_when_the_budget_is_used_up() -> None:
    async with shop(max_containers=2) as one:
        for key in ("a", "b", "c"):
            with one.calls(key):
                pass
            await until(lambda key=key: one.waiting(key) == 1)
        await one.settled()
        assert {item.key for item in one.pool.waiting} == {"b", "c"}
        assert one.made[0].discarded


async def test_memory_is_a_budget_too() -> None:
    async with shop(max_memory=2 * WAITING_MEMORY) as one:
        with one.calls("a", 4):
            pass
        await until(lambda: one.waiting() == 2)
        await one.settled()
        assert one.waiting() == 2


@pytest.mark.parametrize("bound", ["max_containers", "max_per_tool", "max_memory"])
async def test_with_a_bound_of_zero_nothing_waits(bound: str) -> None:
    settings: Any = {bound: 0}
    async with shop(**settings) as one:
        with one.calls("a", 3):
            pass
        await one.settled()
        assert one.made == []


async def test_without_calls_for_a_while_nothing_waits_any_more() -> None:
    async with shop(idle_seconds=0.3) as one:
        with one.calls("a"):
            pass
        await until(lambda: one.waiting() == 1)
        await until(lambda: one.waiting() == 0 and one.made[0].discarded)
        await one.settled()
        assert len(one.made) == 1


async def test_one_that_is_not_fresh_any_more_is_replaced_and_never_given() -> None:
    async with shop() as one:
        with one.calls("a"):
            pass
        await until(lambda: one.waiting() == 1)
        one.made[0].fresh = False
        with one.calls("a") as got:
            assert got == [None]
        await until(lambda: one.made[0].discarded and one.waiting() == 1)
        one.made[1].fresh = False  # found without a call, too
        await until(lambda: one.made[1].discarded and one.waiting() == 1)


async def test_what_cannot_be_made_is_tried_again_less_and_less_often() -> None:
    async with shop() as one:
        one.broken = True
        with one.calls("a"):
            pass
        await until(lambda: one.pool.metrics.failed >= 3)
        one.broken = False
        await until(lambda: one.waiting() == 1)


async def test_those_that_match_are_dropped() -> None:
    async with shop(idle_seconds=60) as one:
        for key in ("a", "b"):
            await one.pool.fill(key)
        one.pool.drop(lambda item: item.key == "a")
        assert [item.key for item in one.pool.waiting] == ["b"]
        await until(lambda: one.made[0].discarded)


async def test_closing_removes_all_and_the_pool_can_be_used_again() -> None:
    async with shop() as one:
        with one.calls("a", 3):
            pass
        await until(lambda: one.waiting() == 3)
        await one.pool.close()
        assert all(item.discarded for item in one.made)
        assert one.waiting() == 0
        with one.calls("a"):
            pass
        await until(lambda: one.waiting() == 1)


async def test_closing_while_one_is_made_leaves_none() -> None:
    ended = anyio.Event()

    async def make(key: str) -> Item:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    begun = anyio.Event()
    pool: WarmPool[str, Item] = WarmPool(WarmSettings(), make, (OSError,))
    with pool.demand("a"):
        pass
    with anyio.fail_after(60):
        await begun.wait()
        await pool.close()
    assert ended.is_set()


async def test_pools_with_one_budget_share_it_and_the_key_called_longest_ago_gives_way_in_any() -> None:
    budget = WarmBudget(WarmSettings(max_containers=2))
    async with shop(budget, max_containers=2) as one, shop(budget, max_containers=2) as other:
        for each, key in ((one, "a"), (other, "b"), (one, "c")):
            with each.calls(key):
                pass
            await until(lambda each=each, key=key: each.waiting(key) == 1)
        await one.settled()
        assert (one.waiting("a"), other.waiting("b"), one.waiting("c")) == (0, 1, 1)
        with other.calls("b", 2):
            pass
        await until(lambda: other.waiting("b") == 2)
        await until(lambda: one.waiting() == 0)


async def test_pools_that_find_room_at_the_same_time_do_not_both_take_it() -> None:
    budget = WarmBudget(WarmSettings(max_containers=1))
    async with shop(budget, max_containers=1) as one, shop(budget, max_containers=1) as other:
        with one.calls("a"), other.calls("b"):
            pass
        await until(lambda: one.waiting() + other.waiting())
        await one.settled()
        await other.settled()
        assert one.waiting() + other.waiting() == 1


async def test_of_more_keys_than_a_pool_remembers_the_one_called_longest_ago_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warm_pool, "MOST_KEYS", 3)
    async with shop() as made:
        with made.calls("runs"):
            for key in ("a", "b", "a", "c"):
                with made.calls(key):
                    pass
                await until(lambda key=key: made.waiting(key))
            assert [made.waiting(key) for key in ("a", "b", "c")] == [1, 0, 1]
        assert len(made.pool._shelves) == 3
        await until(lambda: [item.discarded for item in made.made if item.key == "b"] == [True])


async def test_a_key_that_is_forgotten_has_nothing_waiting_and_gets_nothing() -> None:
    async with shop() as one:
        with one.calls("a"):
            pass
        await until(lambda: one.waiting() == 1)
        one.pool.forget(lambda key: key == "a")
        await until(lambda: one.made[0].discarded)
        await one.settled()
        assert (one.waiting(), len(one.made)) == (0, 1)


async def test_a_tool_that_is_retired_has_nothing_waiting_any_more_and_others_have() -> None:
    async with shop() as one:
        for key in ("a", "b"):
            with one.calls(key):
                pass
        await until(lambda: (one.waiting("a"), one.waiting("b")) == (1, 1))
        one.pool.retire({"a"})
        await one.settled()
        assert (one.waiting("a"), one.waiting("b")) == (0, 1)
        assert [item.key for item in one.made if item.discarded] == ["a"]


async def test_what_waits_for_a_key_that_is_replaced_is_made_again_for_its_successor_without_a_call() -> None:
    async with shop() as one:
        for key in ("old", "other"):
            with one.calls(key):
                pass
        await until(lambda: (one.waiting("old"), one.waiting("other")) == (1, 1))
        one.pool.move(lambda key: "new" if key == "old" else None)
        await until(lambda: (one.waiting("old"), one.waiting("new"), one.waiting("other")) == (0, 1, 1))
        assert [item.key for item in one.made if item.discarded] == ["old"]


async def test_what_was_being_made_for_a_key_that_is_replaced_meanwhile_waits_for_nobody() -> None:
    async with shop() as one:
        one.gate = anyio.Event()
        with one.calls("old"):
            pass
        await until(lambda: one.making)
        one.pool.move(lambda key: "new" if key == "old" else None)
        one.gate.set()
        await until(lambda: one.waiting("new") == 1)
        assert [(item.key, item.discarded) for item in one.made] == [("old", True), ("new", False)]


@pytest.mark.parametrize(
    ("fills_at_once", "most", "expected"),
    [
        pytest.param(1, 8, 1, id="one after the other"),
        pytest.param(3, 8, 3, id="as many as may be made at once"),
        pytest.param(8, 8, 4, id="as many as are wanted"),
        pytest.param(8, 2, 2, id="as many as there is room for"),
    ],
)
async def test_so_many_are_made_at_once(
    fills_at_once: int, most: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_pool, "FORGET_AFTER", 3600.0)
    async with shop(None, fills_at_once, max_containers=most, max_per_tool=4, idle_seconds=60) as one:
        one.gate = anyio.Event()
        with one.calls("a", 4):
            pass
        await until(lambda: one.making == expected)
        await one.settled()
        assert one.making == expected
        one.gate.set()
        await until(lambda: one.waiting("a") == min(4, most))
        await one.settled()
        assert len(one.made) == min(4, most)


async def test_those_that_are_made_at_once_fail_as_one_and_the_next_try_is_a_single_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warm_pool, "FORGET_AFTER", 3600.0)
    monkeypatch.setattr(warm_pool, "RETRY_AFTER", 1.0)
    async with shop(None, 3, idle_seconds=60) as one:
        one.broken, one.gate = True, anyio.Event()
        with one.calls("a", 3):
            pass
        await until(lambda: one.making == 3)
        one.gate.set()
        one.gate = anyio.Event()  # of the next
        await until(lambda: one.pool.metrics.failed == 3)
        (shelf,) = one.pool._shelves.values()
        assert shelf.failures == 1
        await until(lambda: one.making == 1)
        await one.settled()
        assert one.making == 1
        one.broken = False
        one.gate.set()
        await until(lambda: one.waiting("a") == 3)


async def test_closing_while_some_are_made_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_pool, "FORGET_AFTER", 3600.0)
    async with shop(None, 3, idle_seconds=60) as one:
        one.gate = anyio.Event()
        with one.calls("a", 3):
            pass
        await until(lambda: one.making == 3)
        await one.pool.close()
        assert (one.making, one.pool.held) == (0, 0)


def test_a_pool_goes_on_though_the_event_loop_of_its_first_call_ended_with_that() -> None:
    """As for a program that uses the engines as a library, by `anyio.run` for each call."""
    one = Shop(WarmSettings(), None)

    async def once() -> None:
        with one.calls("a"):
            pass

    async def again() -> None:
        with one.calls("a"):
            pass
        try:
            await until(lambda: one.waiting("a") == 1)
        finally:
            await one.pool.close()

    anyio.run(once)
    anyio.run(again)
