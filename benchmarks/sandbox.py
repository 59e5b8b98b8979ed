"""One call of the sandbox engine, compared with bubblewrap alone over the same file system, and with ``docker run``."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from benchmarks.calls import calling, connected, spawning
from benchmarks.measure import Report, Row, Work, in_turns
from benchmarks.startup import serving
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.errors import ExecutionError
from praxis_mcp.settings.model import Settings

IMAGES = ("python:3.11-slim", "busybox:1.36")
"""Images to measure with, the first that can be found: from the store, a Docker daemon, or a registry."""
RAW, OURS, DOCKER = "bubblewrap alone", "sandbox engine", "docker run"
AT_ONCE = 4
SECONDS = 5.0
"""Of each closed loop: so many calls at once, each followed by the next, for so long."""

CONTRACT = """\
name: noop
description: Say hi.
engine: sandbox
image: {image}
command: [echo, hi]
"""


def raw_bubblewrap(root: Path) -> list[str]:
    """What the engine asks of bubblewrap, without its limits, filter, hidden switches and environment."""
    return [
        "bwrap", "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
        "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--unshare-net", "--unshare-user",
        "--new-session", "--die-with-parent", "--cap-drop", "ALL", "--",
    ]  # fmt: skip


def running(engine: SandboxExecutionEngine, contract: ToolContract) -> Work:
    """Run it once by the engine, to its end."""

    async def work() -> float:
        began = time.perf_counter()
        result = await engine.execute(contract, {})
        seconds = time.perf_counter() - began
        assert result.success, result.stderr.text
        return seconds

    return work


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
    if not shutil.which("bwrap"):
        return [Report("The sandbox engine: bubblewrap is not installed", [])]
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(SandboxExecutionEngine(Settings()))
        image = await _first_image(engine)
        if image is None:
            return [Report(f"The sandbox engine: none of {', '.join(IMAGES)} could be found", [])]
        made_by = f"sandboxes made by {(await engine.probe()).version}"
        root = (await engine.images.ensure(image)).image.root
        docker = ["docker", "run", "--rm", "--network", "none", image] if await _has(image) else None

        def works_of(command: list[str]) -> dict[str, Work]:
            contract = ToolContract.create_dagger_tool("noop", image, command)
            works = {RAW: spawning([*raw_bubblewrap(root), *command]), OURS: running(engine, contract)}
            return works | ({DOCKER: spawning([*docker, *command])} if docker else {})

        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "contract.yaml").write_text(CONTRACT.format(image=image))
        client = await stack.enter_async_context(connected(serving(place)))
        writable = ToolContract.create_dagger_tool("noop", image, ["echo", "hi"], read_only=False)
        echo = works_of(["echo", "hi"])
        tools_call = {"tools/call of it, over stdio": calling(client), "writable root": running(engine, writable)}
        against = dict.fromkeys((OURS, *tools_call), RAW) | {DOCKER: OURS}
        rows = await in_turns(echo | tools_call, rounds, against=against)
        reports = [Report(f"The sandbox engine, echo hi in {image}", rows, f"One call at a time; {made_by}.")]
        if image.startswith("python"):
            rows = await in_turns(works_of(["python3", "-c", "pass"]), rounds, against=against)
            reports.append(
                Report(f"The sandbox engine, python3 -c pass in {image}", rows, f"One call at a time; {made_by}.")
            )
        loops = [Row(name, [await closed_loop(work)], against.get(name)) for name, work in echo.items()]
        note = f"{AT_ONCE} calls at once, for {SECONDS:g} s each: milliseconds of wall time a call; {made_by}."
        reports.append(Report("The sandbox engine in a closed loop, echo hi", loops, note))
        return reports


async def _first_image(engine: SandboxExecutionEngine) -> str | None:
    for image in IMAGES:
        try:
            await engine.images.ensure(image)
        except ExecutionError:
            continue
        return image
    return None


async def _has(image: str) -> bool:
    """Whether a Docker daemon is there, with the image."""
    if not shutil.which("docker"):
        return False
    done = await anyio.run_process(["docker", "image", "inspect", image], check=False)
    return done.returncode == 0
