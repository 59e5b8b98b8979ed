"""Contracts whose calls are answered with tasks, and servers that can keep them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client

from tests.serving.clients import Era, Transport, connect, memory_client, open_server, settings_for
from tests.serving.sample_tools import python, write_tool

WAITS = """
import os, sys, time
gate = os.environ["GATE"]
print("progress: 1/2 waiting", file=sys.stderr, flush=True)
open(gate + ".begun", "a").write("x")
while not os.path.exists(gate):
    time.sleep(0.02)
print("through")
"""
"""Goes on until there is a file of the name that it was given."""
LEAVES = """
import json, os, pathlib, sys
out = pathlib.Path(os.environ["PRAXIS_OUTPUT_DIR"])
(out / "report.txt").write_text("the whole report")
print(json.dumps({"sum": 3, "text": "x" * 100_000}))
"""
GATE = {"gate": {"type": "string"}}
SUM = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}


def write_task_tools(directory: Path) -> None:
    write_tool(directory, "waits", python(WAITS), execution="task", parameters=GATE)
    write_tool(directory, "waits_again", python(WAITS), execution="task", retry="safe", parameters=GATE)
    write_tool(directory, "either", python(WAITS), execution="optional", parameters=GATE)
    write_tool(directory, "plain", python("print('plain')"))
    write_tool(directory, "fails", ["sh", "-c", "echo cannot >&2; exit 3"], execution="task")
    write_tool(
        directory,
        "leaves",
        python(LEAVES),
        execution="task",
        output="json",
        output_schema=SUM,
        artifacts=["/out/*.txt"],
    )


@asynccontextmanager
async def connect_keeping(
    transport: Transport, era: Era, directory: Path, tasks: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """As `connect`, with a store for a server in memory, too. `tasks` is that section of the settings."""
    if transport == "memory":
        with tempfile.TemporaryDirectory(prefix="praxis-mcp-tests-records-") as place:
            settings = settings_for(directory, records={"directory": place}, tasks=tasks or {})
            async with open_server(settings) as (_, server), memory_client(server, era, **options) as client:
                yield client
        return
    environment = {f"PRAXIS_TASKS__{name.upper()}": str(value).lower() for name, value in (tasks or {}).items()}
    async with connect(transport, era, directory, environment=environment, **options) as client:
        yield client
