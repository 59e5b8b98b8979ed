"""Memory of a server over stdio: idle, after many calls, and how far it rises while 1 GiB of output passes through."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import anyio
from mcp import Client

from benchmarks.calls import connected, launchers
from benchmarks.contracts import NOOP
from benchmarks.measure import Table
from benchmarks.sandbox import find_image, opened
from benchmarks.startup import BARE, serving
from benchmarks.ways import has_docker

GIGABYTE = 1024**3
CALLS, AT_ONCE = 1000, 8
LIMIT = 120.0
"""Seconds for any one measurement; reached only when something hangs."""
_LOUD = """\
name: {name}
description: Write 1 GiB.
engine: {engine}
{image}command: [head, -c, "{size}", /dev/zero]
timeout: 100
"""
_MIB = 1024.0


async def measure(rounds: int) -> list[Table]:
    """One table; the numbers of a bare SDK server next to it."""
    del rounds  # one process is watched as it goes
    rows: list[tuple[str, list[float]]] = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "noop.contract.yaml").write_text(NOOP.format(name="noop", number=0, network="none"))
        engines = [("local", "local", ""), *await _with_images()]
        for name, engine, image in engines:
            text = _LOUD.format(name=name, engine=engine, image=image, size=GIGABYTE)
            (place / f"{name}.contract.yaml").write_text(text)
        async with connected(BARE) as bare:
            await bare.list_tools()
            rows.append(("bare SDK server, idle", [_now(_server_pid("benchmarks.bare_server")), 0.0]))
        async with connected(serving(place)) as client:
            await client.list_tools()
            await client.call_tool("noop", {})
            await anyio.sleep(3)  # it looks for what others left, and fetches images
            pid = _server_pid(str(place))
            idle = _now(pid)
            rows.append(("idle, every engine opened", [idle, 0.0]))
            await _many(client)
            rows.append((f"after {CALLS} calls", [_now(pid), _now(pid) - idle]))
            for name, _, _ in engines:
                ways = ("docker, cold", "docker, warm") if name == "docker" else (name,)
                for way in ways:
                    rows.append((f"1 GiB of output, {way}", await _rise(client, pid, name)))
                    await anyio.sleep(1.5)  # a container is made ready
    note = "MiB of resident memory. A rise is the highest that the call reached, above what there was before it."
    return [Table("Memory of a server, over stdio", ["memory, MiB", "rise, MiB"], rows, note)]


async def _with_images() -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    if choices := await launchers():
        async with opened(choices[0]) as engine:
            found.append(("sandbox", "sandbox", f"image: {await find_image(engine)}\n"))
    return [*found, *([("docker", "docker", "image: busybox:1.36\n")] if await has_docker() else [])]


async def _many(client: Client) -> None:
    left = CALLS

    async def calls() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await client.call_tool("noop", {})

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(calls)


async def _rise(client: Client, pid: int, tool: str) -> list[float]:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again (proc(5))
    before = _now(pid)
    with anyio.fail_after(LIMIT):
        result = await client.call_tool(tool, {})
    assert not result.is_error, result.content
    return [_now(pid), _status(pid, "VmHWM") - before]


def _now(pid: int) -> float:
    return _status(pid, "VmRSS")


def _status(pid: int, key: str) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(f"{key}:")[2].split()[0]) / _MIB


def _server_pid(word: str) -> int:
    """The child of this process whose command line has that word."""
    found = subprocess.run(
        ["pgrep", "--parent", str(Path("/proc/self").resolve().name), "--full", word], capture_output=True, text=True
    )
    return int(found.stdout.split()[0])
