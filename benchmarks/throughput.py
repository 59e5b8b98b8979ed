"""The sandbox engine when it is always busy: calls a second, the CPU that each takes, and memory over many calls."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio

from benchmarks.measure import Table
from benchmarks.sandbox import ECHO, SMALLEST_FIRST, engines, find_image
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine

AT_ONCE = 8
TURN = 2.0
"""Seconds of each engine's turn."""
MANY, PARTS = 20_000, 5
"""Calls over which memory is watched, and how often."""
LIMIT = 1200.0
"""Seconds for all of those."""
_MIB = 1024.0


@dataclass(slots=True)
class Busy:
    """What one engine did in all its turns: calls, seconds, and seconds of CPU in this process and in its children."""

    calls: int = 0
    seconds: float = 0.0
    own: float = 0.0
    children: float = 0.0

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds

    @property
    def row(self) -> list[float]:
        """As the table has it."""
        return [self.rate, self.own / self.calls * 1000, self.children / self.calls * 1000]


async def measure(rounds: int) -> list[Table]:
    """Both tables; `rounds` turns of each engine."""
    async with engines(SMALLEST_FIRST) as found:
        if not found:
            return []
        contract = ToolContract.create_dagger_tool(
            "noop", await find_image(next(iter(found.values())), SMALLEST_FIRST), ECHO
        )
        busy = {name: Busy() for name in found}
        for _ in range(rounds):
            for name, engine in found.items():
                await in_turn(engine, contract, busy[name])
        note = (
            f"{AT_ONCE} callers, each of which begins its next call when its last has ended, {rounds} turns of "
            f"{TURN:g} s each. CPU: of the engine's process, callers and all, and of what it starts; not that of the "
            "kernel's own threads, which take namespaces down."
        )
        columns = ["calls a second", "CPU, own, ms a call", "CPU, children, ms a call"]
        rates = Table(
            f"{' '.join(ECHO)} in a sandbox, always busy", columns, [(n, b.row) for n, b in busy.items()], note
        )
        name, engine = next(iter(found.items()))
        return [rates, await memory_over(engine, contract, name)]


async def in_turn(engine: SandboxExecutionEngine, contract: ToolContract, busy: Busy) -> None:
    """One turn of an engine, added to what it did before."""
    began, before = time.perf_counter(), _cpu()
    busy.calls += await loop(engine, contract, lambda: time.perf_counter() - began < TURN)
    busy.seconds += time.perf_counter() - began
    busy.own += _cpu()[0] - before[0]
    busy.children += _cpu()[1] - before[1]


async def memory_over(engine: SandboxExecutionEngine, contract: ToolContract, name: str) -> Table:
    """Resident memory of this process after each part of `MANY` calls."""
    rows: list[tuple[str, list[float]]] = []
    done = 0
    with anyio.fail_after(LIMIT):
        for part in range(1, PARTS + 1):
            left = iter(range(MANY // PARTS))
            done += await loop(engine, contract, lambda left=left: next(left, None) is not None)
            rows.append((f"after {part} of {PARTS}", [done, _memory()]))
    note = f"{name}, {AT_ONCE} at once. Flat: no more than 2 MiB between the second part and the last."
    return Table(f"Memory over {MANY:,} calls in a sandbox", ["calls", "memory, MiB"], rows, note)


async def loop(engine: SandboxExecutionEngine, contract: ToolContract, goes_on: Callable[[], bool]) -> int:
    """Call it by `AT_ONCE` callers for as long as that says; how many calls that were."""
    calls = 0

    async def repeat() -> None:
        nonlocal calls
        while goes_on():
            result = await engine.execute(contract, {})
            assert result.success, result.stderr.text
            calls += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(repeat)
    return calls


def _cpu() -> tuple[float, float]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def _memory() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / _MIB
