"""The warm call by itself: what it meets, when it is run from the beginning, and that nothing is left behind."""

from collections.abc import AsyncIterator

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.init.framing import FramingError
from praxis_mcp.engines.init.waiter import WaiterLost
from praxis_mcp.engines.warm.call import WarmCalls, WarmKey
from praxis_mcp.engines.warm.pool import WarmBudget
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import WarmSettings
from tests.kit.until import until

pytestmark = pytest.mark.anyio
PLAN = build_plan(ToolContract.create_dagger_tool("greet", "busybox:1.36", ["true"]), {}, Settings())
KEY = WarmKey.of(PLAN, None)


class Item:
    removed = False

    def is_fresh(self) -> bool:
        return True

    async def discard(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.removed = True


class Engine(WarmCalls[None, Item]):
    """Starts plain objects; what one does with its call is the test's."""

    log = "its log"

    async def start(self, key: WarmKey[None]) -> Item:
        return Item()

    async def run(self, item_does: Exception | str | None) -> str:
        """Run a call; `item_does` is what the one that it meets answers, or raises."""

        async def hand_over(item: Item) -> str | None:
            if isinstance(item_does, Exception):
                raise item_does
            return item_does

        async def cold() -> str:
            return "cold"

        return await self.call(KEY, hand_over, cold)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """An engine with nothing that waits but what a test asks for."""
    settings = WarmSettings(max_per_tool=0)
    engine = Engine(settings, WarmBudget(settings))
    yield engine
    await engine.close()


async def waiting(engine: Engine) -> Item:
    await engine.pool.fill(KEY)
    return engine.pool.waiting[-1]


async def test_a_call_that_meets_one_runs_in_it_and_the_next_runs_from_the_beginning(engine: Engine) -> None:
    item = await waiting(engine)
    assert [await engine.run("warm"), await engine.run("warm")] == ["warm", "cold"]
    await until(lambda: item.removed)
    tools = engine.pool.metrics.tools
    assert (tools["greet"].hits, tools["greet"].misses) == (1, 1)


async def test_a_claim_keeps_what_waits_for_its_call_and_counts_once(engine: Engine) -> None:
    item = await waiting(engine)

    async def hand_over(met: Item) -> str:
        assert met is item
        return "warm"

    async def cold() -> str:
        return "cold"

    with engine.claim(KEY) as claim, engine.claim(KEY) as late:
        assert (claim.begins_now, late.begins_now) == (True, False)
        assert await engine.call(KEY, hand_over, cold, late) == "cold"
        assert await engine.call(KEY, hand_over, cold, claim) == "warm"
    assert (engine.pool.metrics.hits, engine.pool.metrics.misses) == (1, 1)


async def test_what_a_claim_kept_and_no_call_used_is_removed(engine: Engine) -> None:
    item = await waiting(engine)
    with pytest.raises(ExecutionError), engine.claim(KEY):
        raise ExecutionError("before the call began")
    await until(lambda: item.removed)
    assert engine.pool.waiting == ()


async def test_a_claim_on_another_pool_is_of_no_use(engine: Engine) -> None:
    item = await waiting(engine)
    settings = WarmSettings(max_per_tool=0)
    other = Engine(settings, WarmBudget(settings))

    async def hand_over(met: Item) -> str:
        raise AssertionError("it waits elsewhere")

    async def cold() -> str:
        return "cold"

    with engine.claim(KEY) as claim:
        assert await other.call(KEY, hand_over, cold, claim) == "cold"
    await until(lambda: item.removed)
    await other.close()


async def test_a_call_that_may_meet_none_is_not_counted(engine: Engine) -> None:
    item = await waiting(engine)

    async def hand_over(_: Item) -> str:
        return "warm"

    async def cold() -> str:
        return "cold"

    assert await engine.call(None, hand_over, cold) == "cold"
    assert not item.removed
    assert (engine.pool.metrics.hits, engine.pool.metrics.misses) == (0, 0)


@pytest.mark.parametrize(
    "answer",
    [None, FramingError("too large"), WaiterLost("gone", may_have_run=False)],
    ids=["it-cannot-be-used", "larger-than-linux-takes", "lost-before-the-call"],
)
async def test_a_call_that_surely_has_not_run_is_run_from_the_beginning(
    engine: Engine, answer: Exception | None
) -> None:
    item = await waiting(engine)
    assert await engine.run(answer) == "cold"
    await until(lambda: item.removed)


async def test_a_call_that_may_have_run_is_not_run_again(engine: Engine) -> None:
    item = await waiting(engine)
    with pytest.raises(ExecutionError, match=r"greet: its container ended before the call did: gone\.") as failure:
        await engine.run(WaiterLost("gone", may_have_run=True))
    assert item.removed
    assert "see its log" in (failure.value.remedy or "")


async def test_a_cancelled_call_has_removed_what_it_met_when_it_returns(engine: Engine) -> None:
    item = await waiting(engine)
    met = anyio.Event()

    async def hand_over(_: Item) -> str | None:
        met.set()
        await anyio.sleep_forever()

    async def cold() -> str:
        raise AssertionError("it may have run already")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.call, KEY, hand_over, cold)
        await met.wait()
        tasks.cancel_scope.cancel()
    assert item.removed
