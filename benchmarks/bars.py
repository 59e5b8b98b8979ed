"""``python -m benchmarks.bars``: what speed and safety of the sandbox are held to, each with what it is here and now.

Meant for an idle machine with two cores, Docker and bubblewrap; what a machine lacks is left out, and named.
``--suites`` adds the suites that are bars themselves: conformance, escapes, 100 rounds of chaos, a fresh machine. Tools
in pods are measured where KUBECONFIG names a cluster, or PRAXIS_BENCH_CLUSTER=start has the tests' own started.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import anyio
from mcp import Client

from benchmarks import fresh, kubernetes
from benchmarks.calls import COMMAND, FASTMCP, FASTMCP_SERVER, calling, connected, launchers, spawning
from benchmarks.contracts import write_noops
from benchmarks.measure import Report, Row, Table, Work, in_turns, save
from benchmarks.sandbox import (
    BARE,
    CALL,
    CONTRACT,
    ECHO,
    SMALLEST_FIRST,
    engines,
    find_image,
    making,
    named,
    opened,
    running,
)
from benchmarks.startup import BARE as BARE_SERVER
from benchmarks.startup import serving, starting
from benchmarks.throughput import MANY, Busy, in_turn, memory_over
from benchmarks.ways import has_docker
from praxis_mcp.contracts.model import ToolContract

ROUNDS = 60
LOOP_AT_ONCE, LOOP_SECONDS, LOOP_TURNS = 8, 5.0, 3
LOOP_REST = 5.0
"""Seconds between two loops: what a server does behind its last call (Docker alone starts containers for the next, of
which each takes a core for a tenth of a second) falls on no other's."""
CALL_REST = 0.04
"""Seconds of rest after each of the ways that are compared with a call in the sandbox: what a server does behind its
answer, as making a sandbox for the next call, falls on no other, and each begins on caches that are as cold."""
IMAGE = "busybox:1.36"
FLAT = 2.0
"""MiB that memory may grow over the last three fifths of many calls: a thing kept for each would be more."""
SUITE_LIMIT = 3600
ANY_ENGINE = f"""\
name: noop
description: Say hi.
image: {IMAGE}
command: [echo, hi]
"""
_MACHINE = (sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider")
SUITES = {
    "conformance and escape suites, as this user": (
        *_MACHINE, "tests/engines/test_conformance.py", "tests/engines/test_conformance_limits.py",
        "tests/engines/host", "-k", "not docker and not dagger and not remote",
    ),
    "100 rounds of chaos: nothing left": (sys.executable, "-m", "pytest", "-q", "-n0", "tests/chaos"),
    "pods of 100 killed servers: ended within 10 s; canaries": (
        sys.executable, "-m", "pytest", "-q", "-n0", "-m", "kubernetes", "tests/engines/kubernetes/test_killed.py",
        "tests/engines/kubernetes/test_canary.py",
    ),
    "a machine without engines: make demo": ("scripts/without-engines.sh", "make", "demo"),
    "a machine without engines: make test": ("scripts/without-engines.sh", "make", "test"),
}  # fmt: skip
"""Bars that are commands: exit code 0."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what it is about, what was found, what is wanted, and whether that is so; None: not known here."""

    name: str
    found: str
    wanted: str
    holds: bool | None

    def show(self) -> None:
        """Print it as a line."""
        verdict = {True: "pass", False: "FAIL", None: "left out"}[self.holds]
        sys.stdout.write(f"{verdict:8}  {self.name:62}  {self.found:>22}  wanted: {self.wanted}\n")
        sys.stdout.flush()


def left_out(name: str, why: str) -> Bar:
    """A bar that this machine cannot tell of."""
    return Bar(name, why, "", None)


def at_most(name: str, value: float, bound: float, unit: str) -> Bar:
    """A bar from above."""
    return Bar(name, f"{value:.2f} {unit}", f"≤ {bound:g} {unit}", value <= bound)


def at_least(name: str, value: float, bound: float, unit: str) -> Bar:
    """A bar from below."""
    return Bar(name, f"{value:.1f} {unit}", f"≥ {bound:g} {unit}", value >= bound)


def over(row: Row, other: Row) -> float:
    """Milliseconds that one takes more than another: the median over rounds, each of which had both."""
    return statistics.median(mine - its for mine, its in zip(row.seconds, other.seconds, strict=True)) * 1000


def times(row: Row, other: Row) -> float:
    """What one takes, in times of what another takes, likewise."""
    return statistics.median(mine / its for mine, its in zip(row.seconds, other.seconds, strict=True))


def of_means(row: Row, other: Row) -> float:
    """What one takes on average, in times of what another does: for what takes steps, so that a median jumps."""
    return statistics.mean(row.seconds) / statistics.mean(other.seconds)


def rested(work: Work) -> Work:
    """That work, and a rest after it, which does not count."""

    async def both() -> float:
        seconds = await work()
        await anyio.sleep(CALL_REST)
        return seconds

    return both


async def sandboxed(rounds: int, kept: list[Report | Table]) -> list[Bar]:
    """One call in a sandbox: by the engine, cold and waiting, and by a server."""
    own, bubblewrap = named("own"), named("bubblewrap")
    ahead = f"{own}, namespaces made ahead"
    waiting, waiting_call, floor = f"{own}, waiting", f"{CALL}, waiting", f"{CALL}, of a bare SDK server"
    title, call = "sandboxed echo, engine call, over a bare subprocess", "tools/call over stdio, sandbox, over bare"
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(engines(SMALLEST_FIRST))
        if own not in found:
            return [left_out(title, "no own launcher")]
        image = await find_image(found[own], SMALLEST_FIRST)
        contract = ToolContract.create_dagger_tool("noop", image, ECHO)
        works: dict[str, Work] = {BARE: spawning(ECHO)}
        works |= {name: running(engine, contract) for name, engine in found.items()}
        # As users have it: nothing of the tool waits, but empty namespaces do, once the last call is answered.
        engine = await stack.enter_async_context(opened("own", warm=True))
        works[ahead] = making(engine, ToolContract.create_dagger_tool("noop", image, ECHO, warm=False))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {"PRAXIS_ENGINES__SANDBOX__LAUNCHER": "own"}
        for name, contract_of in ((CALL, CONTRACT), (waiting_call, CONTRACT.replace("warm: false\n", ""))):
            (directory := place / str(len(works))).mkdir()
            (directory / "contract.yaml").write_text(contract_of.format(image=image))
            works[name] = calling(await stack.enter_async_context(connected(serving(directory), environment)))
        works[floor] = calling(await stack.enter_async_context(connected(BARE_SERVER)))
        works = {name: rested(work) for name, work in works.items()}
        report = Report(title, await in_turns(works, rounds, against=dict.fromkeys(works.keys() - {BARE}, BARE)))
    kept.append(report)
    bare = report.row(BARE)
    none = over(report.row(own), bare)
    bars = [at_most(f"{title} (nothing ahead: {none:.2f} ms)", over(report.row(ahead), bare), 2.5, "ms")]
    if bubblewrap in works:
        both = over(report.row(ahead), bare), over(report.row(bubblewrap), bare)
        bars.append(at_most("… of bubblewrap's way, both over a bare subprocess", both[0] / both[1], 0.5, "x"))
        whole = times(report.row(ahead), report.row(bubblewrap))
        bars.append(at_most("… of bubblewrap's way, the whole calls", whole, 0.5, "x"))
    else:
        bars.append(left_out("… of bubblewrap's way", "no bubblewrap"))
    if waiting in works:
        bars.append(at_most("the same, waiting, over a bare subprocess", over(report.row(waiting), bare), 1.5, "ms"))
    else:
        bars.append(left_out("the same, waiting, over a bare subprocess", "nothing waits"))
    least = report.row(floor).percentile(50) * 1000
    return [
        *bars,
        at_most(f"{call} (SDK alone: {least:.1f} ms)", over(report.row(CALL), bare), 5, "ms"),
        at_most("… where a sandbox waits for it", over(report.row(waiting_call), bare), 5, "ms"),
    ]


async def plain(rounds: int, kept: list[Report | Table]) -> list[Bar]:
    """A plain local call, and FastMCP's."""
    title = "a plain local tools/call, of FastMCP's"
    peer = os.environ.get(FASTMCP)
    if not peer:
        return [left_out(title, f"no {FASTMCP}")]
    ours, theirs = "praxis-mcp", "FastMCP"
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = serving(write_noops(place / "plain", 1, network="host"))
        off = {"PRAXIS_ENGINES__LOCAL__SANDBOX": "off"}
        works = {
            "spawn": spawning(COMMAND),
            theirs: calling(await stack.enter_async_context(connected([peer, *FASTMCP_SERVER]))),
            ours: calling(await stack.enter_async_context(connected(served, off))),
        }
        report = Report(title, await in_turns(works, rounds * 3, against={ours: theirs}))
    kept.append(report)
    return [at_most(title, times(report.row(ours), report.row(theirs)), 1.3, "x")]


async def busy(kept: list[Report | Table]) -> list[Bar]:
    """The engine when it is always busy."""
    name = named("own")
    async with engines(SMALLEST_FIRST) as found:
        if name not in found:
            return [left_out("sandbox, closed loop", "no own launcher")]
        contract = ToolContract.create_dagger_tool("noop", await find_image(found[name], SMALLEST_FIRST), ECHO)
        did = Busy()
        for _ in range(LOOP_TURNS):
            await in_turn(found[name], contract, did)
        memory = await memory_over(found[name], contract, name)
    kept.append(memory)
    sizes = [values[1] for _, values in memory.rows]
    return [
        at_least("sandbox, closed loop of 8 at the engine", did.rate, 400, "calls/s"),
        at_most(f"… memory over {MANY:,} calls, from the second fifth on", max(sizes[1:]) - sizes[1], FLAT, "MiB"),
    ]


async def spilling(kept: list[Report | Table]) -> list[Bar]:
    """A contract with an image, of which eight calls are always under way, with Docker alone and with the sandbox."""
    title = "closed loop of 8, Docker and sandbox, of Docker alone"
    if not await has_docker() or not await launchers():
        return [left_out(title, "no Docker, or no sandbox")]
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "contract.yaml").write_text(ANY_ENGINE)
        clients = {
            "Docker alone": await stack.enter_async_context(
                connected(serving(place), {"PRAXIS_ENGINES__ORDER": '["docker"]'})
            ),
            "Docker and sandbox": await stack.enter_async_context(
                connected(serving(place), {"PRAXIS_ENGINES__ORDER": '["docker", "sandbox"]'})
            ),
        }
        rows = {name: Row(name) for name in clients}
        for client in clients.values():
            await client.call_tool("noop", {})
            await anyio.sleep(LOOP_SECONDS)  # what is fetched or started ahead of calls is there
        for _ in range(LOOP_TURNS):
            for name, client in clients.items():
                await _loop(client, rows[name].seconds)
                await anyio.sleep(LOOP_REST)
    kept.append(Report(title, list(rows.values()), f"{LOOP_AT_ONCE} at once, for {LOOP_SECONDS:g} s a turn."))
    alone, both = (len(row.seconds) / (LOOP_TURNS * LOOP_SECONDS) for row in rows.values())
    return [
        at_least(f"{title} ({both:.0f} and {alone:.1f} calls/s)", both / alone, 20, "x"),
        at_most("… the 99th percentile", rows["Docker and sandbox"].percentile(99) * 1000, 100, "ms"),
    ]


async def _loop(client: Client, seconds: list[float]) -> None:
    call = calling(client)
    until = time.perf_counter() + LOOP_SECONDS

    async def repeat() -> None:
        while time.perf_counter() < until:
            seconds.append(await call())

    async with anyio.create_task_group() as tasks:
        for _ in range(LOOP_AT_ONCE):
            tasks.start_soon(repeat)


async def clustered(rounds: int, kept: list[Report | Table]) -> list[Bar]:
    """A call in a pod: one that waits, one that is made, many at once."""
    found = await kubernetes.measure(rounds)
    if not found:
        return [left_out("tools in pods", "no cluster")]
    kept += found
    calls, made, burst = found
    bars: list[Bar] = []
    title, waiting = "a waiting call in a pod, of docker run", calls.row(kubernetes.WAITING)
    if shutil.which("docker"):
        bars.append(at_most(title, times(waiting, calls.row(kubernetes.RUN)), 0.05, "x"))
    else:
        bars.append(left_out(title, "no docker"))
    tcp = "… of one that goes to the pod by TCP"
    if kubernetes.DIRECT in {row.name for row in calls.rows}:
        bars.append(at_most(tcp, times(waiting, calls.row(kubernetes.DIRECT)), 3, "x"))
    else:
        bars.append(left_out(tcp, "pods cannot be reached by their addresses"))
    many = f"{kubernetes.AT_ONCE} waiting calls in pods at once, of one"
    for title, ours, theirs, most in (
        ("a waiting pod until hello, of a bare one until it runs", kubernetes.WAITING_POD, kubernetes.BARE_POD, 1.15),
        ("a cold call in a pod, of a bare pod that ends", kubernetes.COLD, kubernetes.BARE_COLD, 1.25),
    ):
        bars.append(at_most(title, of_means(made.row(ours), made.row(theirs)), most, "x"))
    bars.append(at_most(many, times(burst.row(kubernetes.MANY), burst.row(kubernetes.ONE)), 8, "x"))
    return bars


async def startup(rounds: int, kept: list[Report | Table]) -> list[Bar]:
    """A server's first answer."""
    bare = "bare SDK server"
    with tempfile.TemporaryDirectory() as temporary:
        works = {bare: starting(BARE_SERVER, until_list=False)}
        for count in (0, 1000):
            directory = Path(temporary) / str(count)
            directory.mkdir()
            works[f"{count} contracts"] = starting(serving(write_noops(directory, count)), until_list=False)
        report = Report(
            "first answer", await in_turns(works, rounds, against=dict.fromkeys(works.keys() - {bare}, bare))
        )
    kept.append(report)
    return [
        at_most(f"first answer of the bare SDK server's, {name}", times(report.row(name), report.row(bare)), 0.75, "x")
        for name in works
        if name != bare
    ]


def setups() -> Iterator[Bar]:
    """From nothing to a demonstration, and to an installed command."""
    ways = (("make demo, from nothing", fresh.demo, 40), ("uv tool install of the wheel", fresh.tool, 10))
    for name, work, most in ways:
        try:
            yield at_most(name, work(), most, "s")
        except fresh.NotHere as exc:
            yield left_out(name, str(exc))
        except fresh.SetupFailed as exc:
            yield Bar(name, str(exc), f"≤ {most} s", False)


def suites() -> Iterator[Bar]:
    """The bars that are commands."""
    for name, words in SUITES.items():
        began = time.perf_counter()
        done = subprocess.run(
            words, env={**os.environ, "PRAXIS_CHAOS_ROUNDS": "100"}, capture_output=True, text=True, timeout=SUITE_LIMIT
        )
        last = (done.stdout.strip().splitlines() or [""])[-1].strip("= ")
        found = (
            f"{time.perf_counter() - began:.0f} s: {last}" if done.returncode == 0 else f"exit code {done.returncode}"
        )
        yield Bar(name, found, "exit code 0", done.returncode == 0)
        if done.returncode:
            sys.stdout.write("\n".join((done.stdout + done.stderr).splitlines()[-15:]) + "\n")


async def measure(rounds: int, kept: list[Report | Table]) -> list[Bar]:
    """Every bar that is a figure, each shown once it is known."""
    bars: list[Bar] = []
    for part in (
        sandboxed(rounds, kept), plain(rounds, kept), busy(kept), spilling(kept), startup(max(5, rounds // 6), kept),
        clustered(max(5, rounds // 4), kept),
    ):  # fmt: skip
        found = await part
        for bar in found:
            bar.show()
        bars += found
    return bars


def main() -> None:
    """Measure, and exit with 1 where a bar is not held."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bars", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="of each way that is compared (default: %(default)s)"
    )
    parser.add_argument("--suites", action="store_true", help="also run the suites that are bars, which takes long")
    parser.add_argument(
        "--no-setup", action="store_true", help="leave out make demo and uv tool install, which fetch packages"
    )
    parser.add_argument("--json", type=Path, help="write the timings behind the bars to this file")
    options = parser.parse_args()
    load = os.getloadavg()
    tools = ", ".join(tool for tool in ("docker", "bwrap") if shutil.which(tool)) or "neither docker nor bwrap"
    sys.stdout.write(f"load before: {load[0]:.1f}; {os.cpu_count()} cores; {tools}\n")
    kept: list[Report | Table] = []
    bars = anyio.run(measure, options.rounds, kept)
    for bar in chain(() if options.no_setup else setups(), suites() if options.suites else ()):
        bar.show()
        bars.append(bar)
    sys.stdout.write(f"load after: {os.getloadavg()[0]:.1f}\n")
    if options.json:
        save(kept, options.json, load)
    sys.exit(any(bar.holds is False for bar in bars))


if __name__ == "__main__":
    main()
