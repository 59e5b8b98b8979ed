"""A closed loop of eight calls of a contract with an image: on Docker alone, with and without its pool, and where the
sandbox stands in for it; alternately, on the machine as it is and with a process that keeps every core busy."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import anyio

from benchmarks.calls import launchers
from benchmarks.measure import Table
from benchmarks.ways import has_docker
from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.settings.model import Settings

AT_ONCE = 8
SECONDS = 6.0
"""Of each loop; one on Docker alone goes on until its calls have ended."""
REST = 3.0
"""Seconds between loops: for what is removed, and what is made, in the background."""
TAKEN_WITHIN = 60.0
"""Seconds for the sandbox to take the image."""
CONTRACT = """\
name: noop
description: Say hi.
image: busybox:1.36
command: [echo, hi]
"""
ALONE, NO_POOL, BOTH = "Docker alone", "Docker alone, nothing waits", "Docker and sandbox"


@dataclass
class Loops:
    """One way: calls a second of each loop, and the seconds of every call; how many ran in the sandbox."""

    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    in_sandbox: int = 0

    async def run(self, toolbox: Toolbox) -> None:
        """One more loop."""
        began = time.perf_counter()
        done = 0

        async def repeat() -> None:
            nonlocal done
            while (now := time.perf_counter()) - began < SECONDS:
                result = await toolbox.call("noop")
                assert result.output == "hi\n", result
                self.seconds.append(time.perf_counter() - now)
                self.in_sandbox += result.engine == "sandbox"
                done += 1

        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(repeat)
        self.rates.append(done / (time.perf_counter() - began))


async def measure(rounds: int) -> list[Table]:
    """Two tables; none where Docker or a sandbox is missing."""
    if not await has_docker() or not await launchers():
        return []
    tables: list[Table] = []
    with tempfile.TemporaryDirectory() as temporary:
        async with AsyncExitStack() as stack:
            ways = {
                ALONE: await stack.enter_async_context(_toolbox(temporary, spill=False)),
                NO_POOL: await stack.enter_async_context(_toolbox(temporary, spill=False, warm={"enabled": False})),
                BOTH: await stack.enter_async_context(_toolbox(temporary, spill=True)),
            }
            with anyio.fail_after(TAKEN_WITHIN):
                while (await ways[BOTH].call("noop")).engine != "sandbox":
                    await anyio.sleep(0.1)
            for about, hogs in (("", 0), (", every core busy with something else", os.cpu_count() or 1)):
                with _busy(hogs):
                    tables.append(await _table(ways, rounds, about))
    return tables


async def _table(ways: dict[str, Toolbox], rounds: int, about: str) -> Table:
    loops = {name: Loops() for name in ways}
    for _ in range(rounds):
        for name, toolbox in ways.items():
            await anyio.sleep(REST)
            await loops[name].run(toolbox)
    rows: list[tuple[str, list[float]]] = []
    for name, each in loops.items():
        ratio = statistics.median(a / b for a, b in zip(each.rates, loops[ALONE].rates, strict=True))
        parts = statistics.quantiles(each.seconds, n=100, method="inclusive")
        share = 100 * each.in_sandbox / len(each.seconds)
        rows.append((name, [statistics.median(each.rates), ratio, parts[49] * 1000, parts[98] * 1000, share]))
    note = (
        f"{rounds} loops of {SECONDS:g} s each, alternately, at a load of {os.getloadavg()[0]:.0f}; the ratio is the "
        "median of those of each round. Bars: with the sandbox 20 x Docker alone, p99 at most 100 ms on two idle cores."
    )
    columns = ["calls/s", "ratio", "p50 ms", "p99 ms", "% in sandbox"]
    return Table(f"A closed loop of {AT_ONCE}: echo in busybox:1.36{about}", columns, rows, note)


@asynccontextmanager
async def _toolbox(place: str, *, spill: bool, **values: Any) -> AsyncIterator[Toolbox]:
    tools = Path(place) / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "contract.yaml").write_text(CONTRACT, encoding="utf-8")
    engines = {"order": ["docker", "sandbox"], "spill": spill, "sandbox": {"store": f"{place}/images"}}
    settings = Settings.model_validate({"root": place, "tools": [tools], "engines": engines, **values})
    async with open_toolbox(settings) as toolbox:
        yield toolbox


@contextmanager
def _busy(number: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    hogs = [Popen(["/bin/sh", "-c", "while :; do :; done"], stdout=DEVNULL) for _ in range(number)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
