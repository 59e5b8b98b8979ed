"""Start of a stdio server until its first answer, and until its list of tools, by number of contracts."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from benchmarks.contracts import write_noops
from benchmarks.measure import Report, Work, in_turns

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "benchmark", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
BARE = [sys.executable, "-m", "benchmarks.bare_server"]
COUNTS = (0, 10, 100, 1000)


def starting(command: list[str], *, until_list: bool) -> Work:
    """Start a server; the seconds until it answers `initialize`, or `tools/list` after it."""

    async def work() -> float:
        began = time.perf_counter()
        async with await anyio.open_process(command, stderr=None) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            answers = BufferedByteReceiveStream(process.stdout)

            async def ask(message: dict[str, Any]) -> None:
                assert process.stdin is not None
                await process.stdin.send(json.dumps(message).encode() + b"\n")
                if "id" in message:
                    answer = json.loads(await answers.receive_until(b"\n", 64 * 1024 * 1024))
                    assert "result" in answer, answer

            await ask(INITIALIZE)
            if until_list:
                await ask(INITIALIZED)
                await ask(LIST)
            seconds = time.perf_counter() - began
            process.kill()
            return seconds

    return work


def serving(directory: Path) -> list[str]:
    """The command that serves a directory."""
    return [sys.executable, "-m", "praxis_mcp", "serve", str(directory), "--log-level", "ERROR"]


async def measure(rounds: int) -> list[Report]:
    """Both reports."""
    with tempfile.TemporaryDirectory() as temporary:
        directories = {count: Path(temporary) / str(count) for count in COUNTS}
        for count, directory in directories.items():
            directory.mkdir()
            write_noops(directory, count)
        reports = []
        for until_list, title in ((False, "Start to first answer"), (True, "Start to list of tools")):
            works = {"bare SDK server": starting(BARE, until_list=until_list)}
            for count, directory in directories.items():
                works[f"praxis-mcp, {count} contracts"] = starting(serving(directory), until_list=until_list)
            against = {name: "bare SDK server" for name in works if name != "bare SDK server"}
            rows = await in_turns(works, rounds, against=against)
            reports.append(Report(title, rows, "Wall time from the start of the process, over stdio."))
        return reports
