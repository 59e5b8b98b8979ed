"""One ``tools/call`` of a local tool that does nothing, compared with spawning the same command the same way."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from benchmarks.contracts import write_noops
from benchmarks.measure import Report, Work, in_turns
from benchmarks.startup import BARE, serving
from praxis_mcp.engines.host.launcher import find_launcher
from praxis_mcp.engines.host.sandboxed import Launcher
from praxis_mcp.settings.sections import LauncherChoice

COMMAND = ["/bin/true"]
FASTMCP = "PRAXIS_BENCH_FASTMCP"
"""Names a Python that has FastMCP; without it there is no comparison with that."""
FASTMCP_SERVER = ["-m", "benchmarks.fastmcp_server"]
BUBBLEWRAP = [
    "bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--new-session", "--die-with-parent",
    "--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--",
]  # fmt: skip
"""What the local engine isolates by, without the mounts that hide credentials."""


@asynccontextmanager
async def connected(command: list[str], env: dict[str, str] | None = None) -> AsyncIterator[Client]:
    """A client of a server that it has started."""
    started = StdioServerParameters(command=command[0], args=command[1:], env={**os.environ, **(env or {})})
    async with Client(stdio_client(started)) as client:
        yield client


def calling(client: Client) -> Work:
    """Call the tool once."""

    async def work() -> float:
        began = time.perf_counter()
        result = await client.call_tool("noop", {})
        seconds = time.perf_counter() - began
        assert not result.is_error, result.content
        return seconds

    return work


def spawning(command: list[str]) -> Work:
    """Run a command to its end, its streams piped."""

    async def work() -> float:
        began = time.perf_counter()
        await anyio.run_process(command)
        return time.perf_counter() - began

    return work


async def launchers() -> list[LauncherChoice]:
    """What makes sandboxes here."""
    choices: tuple[LauncherChoice, ...] = ("own", "bubblewrap")
    return [choice for choice in choices if isinstance(await find_launcher(choice), Launcher)]


async def measure(rounds: int) -> list[Report]:
    """One report a way of isolation, and one of the protocol alone."""
    reports = []
    async with AsyncExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bare = await stack.enter_async_context(connected(BARE))
        plain = serving(write_noops(temporary / "plain", 1, network="host"))
        unsandboxed = await stack.enter_async_context(connected(plain, {"PRAXIS_ENGINES__LOCAL__SANDBOX": "off"}))
        ways = {"plain process": (unsandboxed, COMMAND)}
        boxed = serving(write_noops(temporary / "boxed", 1))
        for launcher in await launchers():
            environment = {"PRAXIS_ENGINES__LOCAL__SANDBOX": launcher}
            client = await stack.enter_async_context(connected(boxed, environment))
            ways[f"in a sandbox by {launcher}"] = (client, COMMAND)
            if shutil.which("bwrap"):
                ways[f"in a sandbox by {launcher}; spawn: under bubblewrap"] = (client, [*BUBBLEWRAP, *COMMAND])
        for name, (client, command) in ways.items():
            works = {
                "spawn": spawning(command),
                "tools/call of it": calling(client),
                "tools/call of a bare SDK server, nothing spawned": calling(bare),
            }
            rows = await in_turns(works, rounds, against={"tools/call of it": "spawn"})
            reports.append(Report(f"A local tool that does nothing, {name}", rows, "Over stdio, one call at a time."))
        peer = os.environ.get(FASTMCP)
        if peer:
            fastmcp = await stack.enter_async_context(connected([peer, *FASTMCP_SERVER]))
            works = {"FastMCP, a tool that runs it": calling(fastmcp), "praxis-mcp": calling(unsandboxed)}
            rows = await in_turns(works, rounds * 5, against={"praxis-mcp": "FastMCP, a tool that runs it"})
            note = "A whole tools/call over stdio of /bin/true as a plain process, without a sandbox; one at a time."
            reports.append(Report("A plain local call, and another server's", rows, note))
    return reports
