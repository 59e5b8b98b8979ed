"""Calls over Streamable HTTP by 16 clients at once, compared with a bare SDK server that does the same; and memory over
20,000 calls."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2

from benchmarks.contracts import NOOP
from benchmarks.measure import Report, Work, in_turns

CLIENTS = 16
EACH = 20
"""Calls that each client makes in a round."""
ENDURANCE = 20_000
"""Calls over which memory is watched: one in ten spawns, the others are answered from the cache."""
BARE = [sys.executable, "-m", "benchmarks.bare_http_server"]
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass(frozen=True)
class Served:
    """A server that runs: its process, its URL, and a client with a connection for each of `CLIENTS`."""

    process: anyio.abc.Process
    url: str
    http: httpx2.AsyncClient

    async def call(self, tool: str) -> None:
        """Call a tool once."""
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        params: dict[str, Any] = {"name": tool, "arguments": {}, "_meta": META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        response = await self.http.post(self.url, json=body, headers=headers)
        result = response.json()["result"]
        assert not result.get("isError"), result

    @property
    def memory(self) -> float:
        """MiB of resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@asynccontextmanager
async def served(command: list[str]) -> AsyncIterator[Served]:
    """Start a server that prints its URL."""
    environment = {**os.environ, "PRAXIS_ENGINES__LOCAL__SANDBOX": "off"}
    limits = httpx2.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with (
        await anyio.open_process(command, env=environment, stdout=subprocess.DEVNULL) as process,
        httpx2.AsyncClient(limits=limits, timeout=60) as http,
    ):
        assert process.stderr is not None
        try:
            text = ""
            with anyio.fail_after(30):
                while not (text.startswith("Listening on ") and text.endswith("\n")):
                    text += (await process.stderr.receive()).decode()
            yield Served(process, text.split()[2], http)
        finally:
            process.kill()


def working(server: Served, tool: str) -> Work:
    """All clients make their calls; the seconds that took, by call."""

    async def client() -> None:
        for _ in range(EACH):
            await server.call(tool)

    async def work() -> float:
        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(CLIENTS):
                tasks.start_soon(client)
        return (time.perf_counter() - began) / (CLIENTS * EACH)

    return work


async def measure(rounds: int) -> list[Report]:
    """Throughput of spawned and of cached calls, and memory."""
    reports: list[Report] = []
    async with AsyncExitStack() as stack:
        tools = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        noop = NOOP.format(name="noop", number=0, network="host")
        (tools / "noop.contract.yaml").write_text(noop, encoding="utf-8")
        known = NOOP.format(name="known", number=1, network="host") + "cache: pure\n"
        (tools / "known.contract.yaml").write_text(known, encoding="utf-8")
        command = [sys.executable, "-m", "praxis_mcp", "serve", str(tools), "--http", "--port", "0"]
        ours = await stack.enter_async_context(served([*command, "--log-level", "ERROR"]))
        bare = await stack.enter_async_context(served(BARE))
        for tool, title in (("noop", "that spawns /bin/true"), ("known", "that is answered without spawning")):
            works = {"bare SDK server": working(bare, tool), "praxis-mcp": working(ours, tool)}
            rows = await in_turns(works, rounds, against={"praxis-mcp": "bare SDK server"})
            rate = {row.name: f"{1 / row.percentile(50):.0f}/s" for row in rows}
            note = f"Time by call with {CLIENTS} clients at once: {rate['praxis-mcp']}, bare {rate['bare SDK server']}."
            reports.append(Report(f"Throughput of a call {title}, over HTTP", rows, note))
        reports[-1].note += f" {await endure(ours)}"
    return reports


async def endure(server: Served) -> str:
    """Make `ENDURANCE` calls; what they did to the server's memory."""
    seen: list[float] = []
    made = 0

    async def client() -> None:
        nonlocal made
        while made < ENDURANCE:
            made += 1
            if made % (ENDURANCE // 5) == 0:
                seen.append(server.memory)
            await server.call("known" if made % 10 else "noop")

    async with anyio.create_task_group() as tasks:
        for _ in range(CLIENTS):
            tasks.start_soon(client)
    series = ", ".join(f"{memory:.1f}" for memory in seen)
    return f"Memory after each fifth of {ENDURANCE} more calls: {series} MiB."
