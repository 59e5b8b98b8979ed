"""A praxis-init that stands by for the next call whose sandbox is made for it."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.testing.bench import CALL_LIMIT
from tests.engines.host.sandbox_case import SandboxCase
from tests.kit.until import until

GROUPS = find_cgroups()
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.sandbox,
    pytest.mark.skipif(
        GROUPS.unified and bool(GROUPS.bases),
        reason="nothing stands by where it would have to enter a group of version 2",
    ),
]

CASE = SandboxCase()


def standing_by() -> list[int]:
    """This process's children that stand by."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            try:
                is_one = b"--standby" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if is_one:
                found.append(int(pid))
    return found


def others(than: frozenset[int]) -> set[int]:
    """Those of them that stand by; what has become a sandbox may still be leaving."""
    return set(standing_by()) - than


@asynccontextmanager
async def opened(**warm: Any) -> AsyncIterator[ExecutionEngine]:
    """An engine; nothing of it stands by when it is closed."""
    settings = CASE.settings(policy={"host_network": True})
    settings = settings.model_copy(update={"warm": settings.warm.model_copy(update={"enabled": True, **warm})})
    with anyio.fail_after(2 * CALL_LIMIT):
        async with CASE.engine(settings) as engine:
            yield engine
    assert standing_by() == []


async def run(engine: ExecutionEngine, script: str = "echo well; echo ill >&2; cat", **fields: Any) -> str:
    contract = CASE.sh(script, warm=False, **fields)
    result = await engine.execute(contract, {})
    assert result.success, result.stderr.text
    return result.stdout.text + result.stderr.text


async def test_from_the_third_call_on_one_stands_by_serves_one_call_and_ends_with_the_engine() -> None:
    async with opened() as engine:
        await run(engine)
        await run(engine)
        seen: set[int] = set()
        for _ in range(4):
            seen |= await until(partial(others, than=frozenset(seen)))
            assert await run(engine) == "well\nill\n"
        assert len(seen) == 4


async def test_one_that_was_killed_costs_no_call() -> None:
    async with opened() as engine:
        await run(engine)
        await run(engine)
        (pid,) = await until(standing_by)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pid not in standing_by())
        assert await run(engine) == "well\nill\n"


async def test_a_call_that_needs_other_namespaces_leaves_it_alone() -> None:
    async with opened() as engine:
        await run(engine)
        await run(engine)
        before = await until(standing_by)
        assert await run(engine, network="host") == "well\nill\n"
        assert standing_by() == before


async def test_it_does_not_wait_for_ever_and_not_where_nothing_may_wait() -> None:
    async with opened(idle_seconds=0.2) as engine:
        await run(engine)
        await run(engine)
        await until(standing_by)
        await until(lambda: not standing_by())
    async with opened(enabled=False) as engine:
        for _ in range(3):
            await run(engine)
        assert standing_by() == []


async def test_what_is_mounted_on_the_host_meanwhile_is_what_a_call_sees(tmp_path: Path) -> None:
    async with opened() as engine:
        await run(engine)
        await run(engine)
        await until(standing_by)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "file").write_text("made since\n")
        assert await run(engine, "cat /data/file", mounts={str(tmp_path / "data"): "/data"}) == "made since\n"
