"""What killed servers left behind is removed by the next one."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import anyio
import pytest

from praxis_mcp.engines.base import EngineStatus
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.execution.selection import EngineSelector
from praxis_mcp.execution.servers import live_servers, reap_leftovers
from praxis_mcp.support.scratch import CAN_HOLD, PREFIX, Scratch
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


@pytest.mark.skipif(not CAN_HOLD, reason="no directory can be held here")
@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.timeout(20)
def test_a_pipe_or_a_link_in_place_of_what_a_server_says_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = Scratch.make(PREFIX + "server-")
    status = place.path / "status.json"
    try:
        status.write_text('{"pid": 1}')
        assert live_servers() == ({"pid": 1},)
        if kind == "pipe":
            status.unlink()
            os.mkfifo(status)
        else:
            status.rename(tmp_path / "own.json")
            status.symlink_to(tmp_path / "own.json")
        assert live_servers() == ()
    finally:
        place.remove()
