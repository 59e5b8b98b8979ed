"""What killed servers left behind is removed by the next one."""

from __future__ import annotations

import pytest

from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.execution.housekeeping import reap_leftovers
from praxis_mcp.execution.selection import EngineSelector
from tests.execution.engines import AnsweringEngine, Engines

pytestmark = pytest.mark.anyio


class Leaving(AnsweringEngine):
    """An engine with leftovers, which may fail to remove them."""

    def __init__(self, *, fails: bool = False, available: bool = True) -> None:
        super().__init__(available=available)
        self.fails = fails
        self.reaped = 0

    async def reap(self) -> tuple[str, ...]:
        if self.fails:
            raise EngineUnavailable("The daemon is down.")
        self.reaped += 1
        return ("container",)


async def test_every_engine_that_is_there_is_asked_even_where_another_fails() -> None:
    failing, missing, good = Leaving(fails=True), Leaving(available=False), Leaving()
    engines = Engines(dagger=failing, docker=missing, local=good)
    await reap_leftovers(engines, EngineSelector(engines))
    assert (failing.reaped, missing.reaped, good.reaped) == (0, 0, 1)
