"""What `make demo-federation` shows: one server that republishes the tools of two others, and a real MCP client that
calls a tool of each through it.

The orchestrator (configs/orchestrator.yaml) starts both workers itself. A tool runs in a container where an engine and
its image are to be had, else one that runs on the host is called. Ends with 0 only if each worker answered.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent
from rich.console import Console
from rich.markup import escape

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "orchestrator.yaml"
SCRIPTS = Path(sysconfig.get_path("scripts"))

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on"
CANDIDATES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "text": (("text_word_counter", {"text": TEXT, "top": 2}), ("text_hash_text", {"text": TEXT})),
    "data": (("data_calculator", {"expression": "2 ** 64 - 1"}), ("data_system_info", {})),
}
"""What to call of each worker, first choice first."""

LIST_LIMIT = 60.0
CALL_LIMIT = 240.0
"""Seconds; the first call of a tool may pull an image."""

console = Console(highlight=False, soft_wrap=True)


async def demonstrate(log: TextIO) -> bool:
    """Whether a tool of each worker answered. The servers' logs go to `log`."""
    command = str(SCRIPTS / ("praxis-mcp.exe" if sys.platform == "win32" else "praxis-mcp"))
    # The workers' command is looked up on the PATH, which the orchestrator hands on.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(SCRIPTS)])
    server = StdioServerParameters(
        command=command, args=["serve", "--config", str(CONFIG)], env={**os.environ, "PATH": path}, cwd=ROOT
    )
    console.print(f"[bold]$ praxis-mcp serve --config {CONFIG.relative_to(ROOT)}[/]")
    with anyio.fail_after(LIST_LIMIT) as limit:
        async with Client(stdio_client(server, errlog=log)) as client:
            began = time.perf_counter()
            tools = (await client.list_tools()).tools
            limit.deadline = float("inf")
            took = (time.perf_counter() - began) * 1000
            console.print(f"\n[bold]tools/list[/] {len(tools)} tools of two workers, {took:.0f} ms")
            for tool in tools:
                console.print(f"  [cyan]{tool.name}[/]")
            answers = [await call_one(client, worker) for worker in CANDIDATES]
    return all(answers)


async def call_one(client: Client, worker: str) -> bool:
    """Whether one of the worker's tools answered."""
    for tool, arguments in CANDIDATES[worker]:
        console.print(f"\n[bold]tools/call {tool}[/] {escape(json.dumps(arguments))}")
        began = time.perf_counter()
        try:
            with anyio.fail_after(CALL_LIMIT):
                result = await client.call_tool(tool, arguments)
        except (MCPError, TimeoutError) as exc:
            console.print(f"  [yellow]not on this machine:[/] {escape(str(exc))}")
            continue
        if result.is_error:
            console.print(f"  [yellow]not on this machine:[/] {escape(text_of(result))}")
            continue
        took = (time.perf_counter() - began) * 1000
        console.print(f"  [green]✓[/] {escape(text_of(result))}\n  answered by worker-{worker} in {took:.0f} ms")
        return True
    return False


def text_of(result: CallToolResult) -> str:
    """All text of a result."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def main() -> int:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        try:
            worked = anyio.run(demonstrate, log)
        except (MCPError, TimeoutError, OSError) as exc:
            console.print(f"[red]✗[/] {escape(str(exc) or type(exc).__name__)}")
            worked = False
        if not worked:
            log.seek(0)
            console.print(f"\n[red]✗ The federation did not work.[/] Its log:\n{escape(log.read()[-6000:])}")
    return 0 if worked else 1


if __name__ == "__main__":
    sys.exit(main())
