"""A call of an upstream's tool through this server, compared with the same client calling the upstream itself.

A relay adds one exchange between a client and a server to a call, so that a tool that takes no time cannot be relayed
in much less than twice the time. The row "least SDK relay" says what the SDK alone makes of that, in the same run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from mcp import Client

from benchmarks.echo_server import WORK, connected
from benchmarks.measure import Report, Work, in_turns

ECHO = [sys.executable, "-m", "benchmarks.echo_server"]
ROOT = Path(__file__).resolve().parents[1]
DIRECT, RELAYED, LEAST = "direct", "through praxis-mcp", "through the least SDK relay"
KINDS = {
    "echo": "no time",
    "work": f"{WORK * 1000:g} ms of work",
    "record": "no time and answers by a record that fits its output schema",
}


@contextmanager
def listening(command: list[str]) -> Iterator[str]:
    """The address of an HTTP server that is started and killed."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            # Our own server says on standard error where it listens, the bare one its port on standard output.
            is_ours = "praxis_mcp" in command
            line = (process.stderr if is_ours else process.stdout).readline()  # pyright: ignore[reportOptionalMemberAccess]
            yield line.split()[-1] if is_ours else f"http://127.0.0.1:{int(line)}/mcp"
        finally:
            process.kill()


def praxis(directory: Path, address: str | list[str], *options: str) -> list[str]:
    """The command of a server that republishes the upstream and nothing else."""
    config = directory / "praxis.yaml"
    upstream: dict[str, Any] = {"address": address, "prefix": "", "env": {"PYTHONPATH": str(ROOT)}}
    if isinstance(address, str):
        del upstream["env"]
    config.write_text(json.dumps({"tools": [], "upstreams": {"up": upstream}}), encoding="utf-8")
    return [sys.executable, "-m", "praxis_mcp", "serve", "--config", str(config), "--log-level", "ERROR", *options]


def calling(client: Client, tool: str) -> Work:
    """Call the tool once."""

    async def work() -> float:
        began = time.perf_counter()
        result = await client.call_tool(tool, {"text": "hello"})
        seconds = time.perf_counter() - began
        assert not result.is_error, result.content
        return seconds

    return work


async def measure(rounds: int) -> list[Report]:
    """One report a transport and kind of tool."""
    reports: list[Report] = []
    for transport in ("stdio", "http"):
        async with AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            clients: dict[str, Client] = {}
            if transport == "stdio":
                address: str | list[str] = [*ECHO, "stdio"]
                places: dict[str, str | list[str]] = {
                    DIRECT: address,
                    RELAYED: praxis(directory, address),
                    LEAST: [*ECHO, "stdio", "--relay", json.dumps(address)],
                }
            else:
                address = stack.enter_context(listening([*ECHO, "http"]))
                ours = praxis(directory, address, "--http", "--port", "0")
                places = {
                    DIRECT: address,
                    RELAYED: stack.enter_context(listening(ours)),
                    LEAST: stack.enter_context(listening([*ECHO, "http", "--relay", address])),
                }
            for name, place in places.items():
                clients[name] = await stack.enter_async_context(connected(place))
                await clients[name].list_tools()
            for tool, kind in KINDS.items():
                works = {name: calling(client, tool) for name, client in clients.items()}
                rows = await in_turns(works, rounds, against={RELAYED: DIRECT, LEAST: DIRECT})
                note = f"One call at a time, {transport} on both sides of the relay."
                reports.append(Report(f"A relayed tool that takes {kind}, {transport}", rows, note))
    return reports
