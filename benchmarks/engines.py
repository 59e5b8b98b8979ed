"""Every engine next to the bare ways of running the same command, in the same run: latency until the first byte and the
end, one at a time, paced, in a burst, and in closed loops."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence

import anyio

from benchmarks.measure import Report, Row, Table
from benchmarks.ways import Sample, Task, Way, ways

BUSYBOX = "busybox:1.36"
MEGABYTE = 1024 * 1024
ECHO = Task("echo hi", BUSYBOX, ("echo", "hi"), output=3)
_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"  # not a version manager's script
PYTHON = Task(
    "python3 -c print(1)", "python:3.11-slim", ("python3", "-c", "print(1)"), 2, on_host=(_PYTHON, "-c", "print(1)")
)
TASKS = (
    (ECHO, 1.0),
    (PYTHON, 0.8),
    (Task("cat, 1 MB in and out", BUSYBOX, ("cat",), output=MEGABYTE, stdin=b"x" * MEGABYTE), 0.5),
    (Task("100 MB out", BUSYBOX, ("head", "-c", str(100 * MEGABYTE), "/dev/zero"), output=100 * MEGABYTE), 0.3),
)
"""What is run one at a time, and which part of the rounds."""
PACE, PACED = 0.5, 10
"""Seconds from one beginning to the next, and how many."""
BURST = 32
AT_ONCE = (1, 4, 16)
LOOP_SECONDS = 2.0
LIMIT = 180.0
"""Seconds for any one measurement; reached only when something hangs."""
_PACED = ("bare subprocess", "sandbox, own", "sandbox, bubblewrap", "docker run", "docker, cold", "docker, warm")


async def measure(rounds: int) -> list[Report | Table]:
    """All tables."""
    reports: list[Report | Table] = []
    async with ways() as found:
        for task, part in TASKS:
            reports += await _one_at_a_time(found, task, max(3, round(rounds * part)))
        reports.append(await _paced([way for way in found if way.name in _PACED]))
        reports.append(await _burst(found))
        reports += await _loops(found)
    return reports


async def _one_at_a_time(found: Sequence[Way], task: Task, rounds: int) -> list[Report | Table]:
    samples: dict[str, list[Sample]] = {way.name: [] for way in found}
    for number in range(rounds + 1):
        for way in found:
            with anyio.fail_after(LIMIT):
                await way.ready(task) if number else None
                sample = await way.run(task)
            if number:  # the first warms caches
                samples[way.name].append(sample)
    title = f"{task.name}, one at a time"
    total = [Row(way.name, [each.total for each in samples[way.name]], way.against) for way in found]
    first = [Row(way.name, [each.first for each in samples[way.name]], way.against) for way in found]
    note = "Through the engine, without a server. docker, warm: when a container waits (how often one does: see paced)."
    return [Report(f"{title}: until the end", total, note), Report(f"{title}: until the first byte", first)]


async def _paced(found: Sequence[Way]) -> Report:
    """A call every `PACE` seconds, however long the last one takes, as agents make them."""
    rows: list[Row] = []
    for way in found:
        row = Row(way.name, [], way.against)

        async def call(way: Way = way, row: Row = row) -> None:
            row.seconds.append((await way.run(ECHO)).total)

        with anyio.fail_after(LIMIT):
            await way.run(ECHO)
            async with anyio.create_task_group() as tasks:
                began = time.perf_counter()
                for number in range(PACED):
                    await anyio.sleep(max(0.0, began + (number + 1) * PACE - time.perf_counter()))
                    tasks.start_soon(call)
        rows.append(row)
    against = {row.name for row in rows}
    for row in rows:
        row.against = row.against if row.against in against else None
    note = f"Until the end; {PACED} calls of each, one after the other way. docker, warm takes what its pool has."
    return Report(f"{ECHO.name}, paced at {1 / PACE:g} a second", rows, note)


async def _burst(found: Sequence[Way]) -> Report:
    rows: list[Row] = []
    for way in found:
        row = Row(way.name, [], way.against)
        began = time.perf_counter()

        async def call(way: Way = way, row: Row = row, began: float = began) -> None:
            await way.run(ECHO)
            row.seconds.append(time.perf_counter() - began)

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                for _ in range(BURST):
                    tasks.start_soon(call)
        rows.append(row)
    note = f"Until the end, from the beginning of the burst: p50 is when half of the {BURST} were done."
    return Report(f"{ECHO.name}, a burst of {BURST}", rows, note)


async def _loops(found: Sequence[Way]) -> list[Report | Table]:
    rates: list[tuple[str, list[float]]] = []
    rows: list[Row] = []
    for way in found:
        mine: list[float] = []
        for at_once in AT_ONCE:
            seconds: list[float] = []
            with anyio.fail_after(LIMIT):
                took = await _loop(way, at_once, seconds)
            mine.append(len(seconds) / took)
            if at_once == AT_ONCE[1]:
                rows.append(Row(way.name, seconds, way.against))
        rates.append((way.name, mine))
    columns = [f"{at_once} at once" for at_once in AT_ONCE]
    note = f"Calls a second; each of so many callers begins its next call when its last has ended, {LOOP_SECONDS:g} s."
    return [
        Table(f"{ECHO.name}, throughput by concurrency", columns, rates, note),
        Report(f"{ECHO.name}, closed loop of {AT_ONCE[1]}", rows, "Until the end, in the same loops."),
    ]


async def _loop(way: Way, at_once: int, seconds: list[float]) -> float:
    began = time.perf_counter()

    async def repeat() -> None:
        while time.perf_counter() - began < LOOP_SECONDS:
            seconds.append((await way.run(ECHO)).total)

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(repeat)
    return time.perf_counter() - began
