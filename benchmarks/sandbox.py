"""Calls of the sandbox engine by each launcher, cold and waiting, compared with a bare subprocess, with bubblewrap
alone over the same file system, and with ``docker run``."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio

from benchmarks.calls import calling, connected, launchers, spawning
from benchmarks.measure import Report, Row, Work, in_turns
from benchmarks.startup import serving
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.errors import ExecutionError
from praxis_mcp.images.from_host import BOUNDS
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import LauncherChoice

IMAGES = ("python:3.11-slim", "busybox:1.36")
"""Images to measure with, the first that can be found: from the store, a Docker daemon, or a registry; else one is made
of this machine's programs."""
SMALLEST_FIRST = tuple(reversed(IMAGES))
OF_THE_HOST = "localhost/praxis-mcp-benchmark"
BARE, RAW, DOCKER, CALL = "bare subprocess", "bubblewrap alone", "docker run", "tools/call over stdio"
ECHO = ["echo", "hi"]
AT_ONCE = 4
SECONDS = 5.0
"""Of each closed loop: so many calls at once, each followed by the next, for so long."""
REST = 0.5
"""Seconds of rest after ``docker run``, one at a time."""
READY_LIMIT = 10.0
"""Seconds for a sandbox to be made ready before a call that is to meet one."""

CONTRACT = """\
name: noop
description: Say hi.
engine: sandbox
image: {image}
command: [echo, hi]
warm: false
"""


def raw_bubblewrap(root: Path) -> list[str]:
    """What the engine asks of bubblewrap, without its limits, filter, hidden switches and environment."""
    return [
        "bwrap", "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
        "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--unshare-net", "--unshare-user",
        "--new-session", "--die-with-parent", "--cap-drop", "ALL", "--",
    ]  # fmt: skip


def making(engine: ExecutionEngine, contract: ToolContract) -> Work:
    """Run it once by the engine, to its end, whatever waits."""

    async def work() -> float:
        began = time.perf_counter()
        result = await engine.execute(contract, {})
        seconds = time.perf_counter() - began
        assert result.success, result.stderr.text
        return seconds

    return work


def running(engine: ExecutionEngine, contract: ToolContract) -> Work:
    """Run it once by the engine, to its end. Where things wait for calls, one that waits for this contract, which is
    not counted; a call that met none is made again."""
    make = making(engine, contract)

    async def work() -> float:
        while True:
            pool = engine.warm()
            with anyio.move_on_after(READY_LIMIT):
                while pool is not None and not pool.waiting:
                    await anyio.sleep(0.005)
                    pool = engine.warm()
            seconds = await make()
            after = engine.warm()
            if pool is None or after is None or after.hits > pool.hits:
                return seconds

    return work


def resting(work: Work) -> Work:
    """The same, with a rest behind it: while Docker takes a container's network down, no sandbox gets one."""

    async def rested() -> float:
        seconds = await work()
        await anyio.sleep(REST)
        return seconds

    return rested


def opened(launcher: LauncherChoice, *, warm: bool = False) -> SandboxExecutionEngine:
    """An engine that makes sandboxes so."""
    return SandboxExecutionEngine(
        Settings.model_validate({"engines": {"sandbox": {"launcher": launcher}}, "warm": {"enabled": warm}})
    )


@asynccontextmanager
async def engines(images: Sequence[str] = IMAGES) -> AsyncIterator[dict[str, SandboxExecutionEngine]]:
    """One for each launcher that works here, and one whose sandboxes wait for calls in the first of these images that
    can be found, by the names of their rows."""
    async with AsyncExitStack() as stack:
        found: dict[str, SandboxExecutionEngine] = {}
        for launcher in await launchers():
            found[named(launcher)] = await stack.enter_async_context(opened(launcher))
            warm = await stack.enter_async_context(opened(launcher, warm=True))
            await warm.execute(ToolContract.create_dagger_tool("noop", await find_image(warm, images), ECHO), {})
            if warm.warm() is not None:
                found[f"{named(launcher)}, waiting"] = warm
        yield found


def named(launcher: LauncherChoice) -> str:
    """The name of a launcher's row."""
    return f"sandbox engine, {launcher}"


async def closed_loop(work: Work) -> float:
    """Seconds a call when `AT_ONCE` of them are always under way: the wall time over the number of calls."""
    done = 0
    began = time.perf_counter()

    async def repeat() -> None:
        nonlocal done
        while time.perf_counter() - began < SECONDS:
            await work()
            done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(repeat)
    return (time.perf_counter() - began) / done


async def measure(rounds: int) -> list[Report]:
    """One call at a time, for commands that cost nothing and little; then the closed loop."""
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(engines())
        if not found:
            return [Report("The sandbox engine: nothing here makes sandboxes", [])]
        first = next(iter(found.values()))
        image = await find_image(first)
        root = (await first.images.ensure(image)).image.root
        docker = ["docker", "run", "--rm", "--network", "none", image] if await _has(image) else None
        against = dict.fromkeys(found, BARE) | {DOCKER: BARE, RAW: BARE}

        def works_of(command: list[str], on_host: list[str]) -> dict[str, Work]:
            contract = ToolContract.create_dagger_tool("noop", image, command)
            works = {BARE: spawning(on_host)}
            if shutil.which("bwrap"):
                works[RAW] = spawning([*raw_bubblewrap(root), *command])
            works |= {name: running(engine, contract) for name, engine in found.items()}
            return works | ({DOCKER: resting(spawning([*docker, *command]))} if docker else {})

        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "contract.yaml").write_text(CONTRACT.format(image=image))
        writable = ToolContract.create_dagger_tool("noop", image, ECHO, read_only=False)
        echo = more = works_of(ECHO, ECHO)
        for launcher in await launchers():
            environment = {"PRAXIS_ENGINES__SANDBOX__LAUNCHER": launcher}
            client = await stack.enter_async_context(connected(serving(place), environment))
            more = more | {
                f"{CALL}, {launcher}": calling(client),
                f"{named(launcher)}, writable root": running(found[named(launcher)], writable),
            }
        against |= dict.fromkeys(more.keys() - {BARE}, BARE)
        reports = [Report(f"{' '.join(ECHO)} in {image}", await in_turns(more, rounds, against=against), _NOTE)]
        if image.startswith("python"):
            python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"
            works = works_of(["python3", "-c", "pass"], [python, "-c", "pass"])
            rows = await in_turns(works, rounds, against=against)
            reports.append(Report(f"python3 -c pass in {image}", rows, _NOTE))
        # A call that waits for its sandbox measures how fast they are made: that is the cold way.
        if docker:
            echo[DOCKER] = spawning([*docker, *ECHO])
        loops = [
            Row(name, [await closed_loop(work)], against.get(name))
            for name, work in echo.items()
            if not name.endswith("waiting")
        ]
        note = f"{AT_ONCE} calls at once, for {SECONDS:g} s each: milliseconds of wall time a call."
        reports.append(Report("The sandbox engine in a closed loop, echo hi", loops, note))
        return reports


_NOTE = (
    "One call at a time. The bare subprocess is the host's program. own: praxis-init makes the sandbox; waiting: it "
    "was made before the call; tools/call: with a server around it, cold."
)


async def find_image(engine: SandboxExecutionEngine, images: Sequence[str] = IMAGES) -> str:
    """An image that the engine can run `ECHO` in, the first of these that can be found."""
    for image in (*images, OF_THE_HOST):
        try:
            await engine.images.ensure(image)
        except ExecutionError:
            continue
        return image
    await engine.images.from_host(OF_THE_HOST, ["echo", "head", "true"], [], BOUNDS, lambda _: None)
    return OF_THE_HOST


async def _has(image: str) -> bool:
    """Whether a Docker daemon is there, with the image."""
    if not shutil.which("docker"):
        return False
    done = await anyio.run_process(["docker", "image", "inspect", image], check=False)
    return done.returncode == 0
