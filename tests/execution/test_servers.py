"""What killed servers left behind is removed by the next one."""

from __future__ import annotations

import errno

import anyio
import pytest

from praxis_mcp.engines.base import EngineStatus
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.execution.selection import EngineSelector
from praxis_mcp.execution.servers import reap_leftovers
from tests.execution.engines import AnsweringEngine, Engines

pytestmark = pytest.mark.anyio


class Leaving(AnsweringEngine):
    """An engine with leftovers, which may fail to remove them."""

    def __init__(self, *, fails: bool = False, available: bool = True) -> None:
        super().__init__(available=available)
        self.fails = fails
        self.reaped = 0
        self.asked = anyio.Event()

    async def reap(self) -> tuple[str, ...]:
        if self.fails:
            raise EngineUnavailable("The daemon is down.")
        self.reaped += 1
        self.asked.set()
        return ("container",)


async def test_every_engine_that_is_there_is_asked_even_where_another_fails() -> None:
    failing, missing, good = Leaving(fails=True), Leaving(available=False), Leaving()
    engines = Engines(dagger=failing, docker=missing, local=good)
    await reap_leftovers(engines, EngineSelector(engines))
    assert (failing.reaped, missing.reaped, good.reaped) == (0, 0, 1)


class Unreadable(Leaving):
    """An engine that cannot even be looked at."""

    async def probe(self) -> EngineStatus:
        raise OSError(errno.EMFILE, "Too many open files")


async def test_an_engine_that_cannot_be_looked_at_does_not_end_the_look_for_leftovers() -> None:
    good = Leaving()
    engines = Engines(dagger=Unreadable(), local=good)
    await reap_leftovers(engines, EngineSelector(engines))
    assert good.reaped == 1


class Slow(Leaving):
    """An engine whose daemon answers when another engine has been asked, and not before."""

    def __init__(self, other: Leaving) -> None:
        super().__init__()
        self.other = other

    async def reap(self) -> tuple[str, ...]:
        await self.other.asked.wait()
        return await super().reap()


async def test_a_slow_engine_does_not_keep_what_others_left_running() -> None:
    other = Leaving()
    slow = Slow(other)
    engines = Engines(dagger=slow, local=other)
    with anyio.fail_after(60):
        await reap_leftovers(engines, EngineSelector(engines))
    assert (slow.reaped, other.reaped) == (1, 1)
