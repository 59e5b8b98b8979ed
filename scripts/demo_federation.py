"""What `make demo-federation` shows: one server that republishes the tools of two others, and a real MCP client that
calls a tool of each through it.

Three servers on the loopback, each at a free port: two workers, and the orchestrator (configs/orchestrator.yaml) that
reaches them by HTTP. As in `make demo`, a tool runs in a container where there is an engine and its image, in an image
of the Python that runs this where there is only the sandbox, else one that runs on the host is called. Ends with 0 only
if each worker answered.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import anyio
import anyio.abc
import yaml
from anyio.streams.buffered import BufferedByteReceiveStream
from demo import prepare_tools
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent
from rich.console import Console
from rich.markup import escape

from praxis_mcp.cli.terminal import write_in_any_encoding

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = Path("configs")
TOOLS = ROOT / "tools"
SCRIPTS = Path(sysconfig.get_path("scripts"))

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on"
CANDIDATES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "text": (("text_word_counter", {"text": TEXT, "top": 2}), ("text_hash_text", {"text": TEXT})),
    "data": (("data_calculator", {"expression": "2 ** 64 - 1"}), ("data_system_info", {})),
}
"""What to call of each worker, first choice first."""

START_LIMIT = 60.0
STOP_LIMIT = 15.0
LIST_LIMIT = 60.0
CALL_LIMIT = 240.0
"""Seconds; the first call of a tool may pull an image."""

console = Console(highlight=False, soft_wrap=True)


async def demonstrate(tools_directory: Path, log: TextIO) -> bool:
    """Whether a tool of each worker answered, of those in `tools_directory`. The servers' logs go to `log`."""
    async with AsyncExitStack() as stack:
        places: dict[str, str] = {}
        for worker in CANDIDATES:
            url = await stack.enter_async_context(serving(f"worker-{worker}", moved(worker, tools_directory), log))
            places[f"PRAXIS_UPSTREAMS__{worker.upper()}__ADDRESS"] = url
        url = await stack.enter_async_context(serving("orchestrator", places, log))
        client = await stack.enter_async_context(Client(url))
        began = time.perf_counter()
        with anyio.fail_after(LIST_LIMIT):
            tools = (await client.list_tools()).tools
        took = (time.perf_counter() - began) * 1000
        console.print(f"\n[bold]tools/list[/] {len(tools)} tools of two workers, {took:.0f} ms")
        for tool in tools:
            console.print(f"  [cyan]{tool.name}[/]")
        return all([await call_one(client, worker) for worker in CANDIDATES])


def moved(worker: str, tools_directory: Path) -> dict[str, str]:
    """The variables by which a worker serves its tools from another directory than its file of settings names."""
    if tools_directory == TOOLS:
        return {}
    own = yaml.safe_load((ROOT / CONFIGS / f"worker-{worker}.yaml").read_text(encoding="utf-8"))["tools"]
    return {"PRAXIS_TOOLS": json.dumps([str(tools_directory / Path(tool).name) for tool in own])}


@asynccontextmanager
async def serving(name: str, env: Mapping[str, str], log: TextIO) -> AsyncIterator[str]:
    """The URL of a server by its file of settings, at a free port; it ends with this context."""
    words = ["serve", "--config", str(CONFIGS / f"{name}.yaml"), "--http", "--port", "0"]
    console.print(f"[bold]$ praxis-mcp {' '.join(words)}[/]")
    command = str(SCRIPTS / ("praxis-mcp.exe" if sys.platform == "win32" else "praxis-mcp"))
    async with await anyio.open_process([command, *words], env={**os.environ, **env}, cwd=ROOT) as process:
        assert process.stderr is not None
        lines = BufferedByteReceiveStream(process.stderr)
        async with anyio.create_task_group() as tasks:
            try:
                with anyio.fail_after(START_LIMIT):
                    url = await _announced(lines, log)
                console.print(f"  {url}")
                tasks.start_soon(_copy, lines, log)
                yield url
            finally:
                process.terminate()
                with anyio.move_on_after(STOP_LIMIT, shield=True) as limit:
                    await process.wait()
                if limit.cancelled_caught:
                    process.kill()
                tasks.cancel_scope.cancel()


async def _announced(lines: BufferedByteReceiveStream, log: TextIO) -> str:
    while True:
        try:
            line = (await lines.receive_until(b"\n", 1024 * 1024)).decode(errors="replace").rstrip()
        except (anyio.EndOfStream, anyio.IncompleteRead) as exc:
            raise OSError("a server ended before it listened") from exc
        log.write(f"{line}\n")
        if line.startswith("Listening on "):
            return line.split()[-1]


async def _copy(lines: BufferedByteReceiveStream, log: TextIO) -> None:
    async for piece in lines:
        log.write(piece.decode(errors="replace"))


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
            console.print(f"  [yellow]not on this machine:[/] {escape(indented(text_of(result)))}")
            continue
        took = (time.perf_counter() - began) * 1000
        console.print(f"  [green]✓[/] {escape(text_of(result))}\n  answered by worker-{worker} in {took:.0f} ms")
        return True
    return False


def text_of(result: CallToolResult) -> str:
    """All text of a result."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def indented(text: str) -> str:
    """The text with its further lines below its first."""
    return text.replace("\n", "\n    ")


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="praxis-demo-") as place,
        tempfile.TemporaryFile("w+", encoding="utf-8") as log,
    ):
        try:
            worked = anyio.run(demonstrate, prepare_tools(Path(place), TOOLS), log)
        except (MCPError, TimeoutError, OSError) as exc:
            console.print(f"[red]✗[/] {escape(str(exc) or type(exc).__name__)}")
            worked = False
        if not worked:
            log.seek(0)
            console.print(f"\n[red]✗ The federation did not work.[/] Its log:\n{escape(log.read()[-6000:])}")
    return 0 if worked else 1


if __name__ == "__main__":
    write_in_any_encoding()
    sys.exit(main())
