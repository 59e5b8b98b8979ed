"""What `make demo` shows: a real MCP client starts the server, lists its tools and calls one.

The tool runs in a container where there is an engine and its image. Where there is only the sandbox and no image, it
gets one of the Python that runs this; else a tool that runs on the host itself is called. The demo says which, and why.
Ends with 0 only if a call succeeded. An argument names another directory of tools.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent, Tool
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from praxis_mcp.cli.terminal import write_in_any_encoding
from praxis_mcp.serving.mcp.results import META_KEY
from praxis_mcp.support.text import counted

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "tools"
SERVER = Path(sysconfig.get_path("scripts")) / ("praxis-mcp.exe" if sys.platform == "win32" else "praxis-mcp")

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on"
CANDIDATES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("word_counter", {"text": TEXT, "top": 2}),
    ("hash_text", {"text": TEXT}),
    ("system_info", {}),
)
"""What to call, first choice first: the first needs a container engine, the second (on the host, without network)
Linux, the third only Python."""

LIST_LIMIT = 60.0
"""Seconds until the server must have started and listed its tools."""
CALL_LIMIT = 240.0
"""Seconds for one call; the first may pull an image."""
EXPLAIN_LIMIT = 60.0

PYTHON = os.path.realpath(sys.executable)
"""Without its virtual environment, which may lie where an image can have nothing, in /tmp; the tools need none."""
HOST_IMAGE = f"localhost/praxis-demo-python:{platform.python_version()}"
"""The name of an image of the Python that runs this."""

console = Console(highlight=False, soft_wrap=True)


class CallFailed(Exception):
    """A call gave no usable result; the message says why, in the server's words."""


@dataclass(frozen=True)
class Timing:
    """Seconds, as the client saw them."""

    start: float
    listing: float
    first_call: float
    second_call: float


async def demonstrate(tools_directory: Path, log: TextIO) -> bool:
    """Whether a call succeeded. The server's log goes to `log`."""
    console.print(f"[bold]$ {escape(shlex.join([short(SERVER), 'serve', short(tools_directory)]))}[/]")
    command = ["serve", str(tools_directory)]
    server = StdioServerParameters(command=str(SERVER), args=command, env=environment(), cwd=ROOT)
    began = time.perf_counter()
    with anyio.fail_after(LIST_LIMIT) as limit:
        async with Client(stdio_client(server, errlog=log)) as client:
            started = time.perf_counter()
            tools = await all_tools(client)
            listed = time.perf_counter()
            limit.deadline = float("inf")
            show_tools(tools, client.protocol_version)
            names = {tool.name for tool in tools}
            for tool, arguments in CANDIDATES:
                if tool not in names:
                    continue
                console.print(f"\n[bold]tools/call {tool}[/] {escape(json.dumps(arguments))}")
                try:
                    result, first = await call(client, tool, arguments)
                    _, second = await call(client, tool, arguments)
                except CallFailed as exc:
                    reason = str(exc).replace("\n", "\n  ")
                    console.print(f"  [yellow]not on this machine:[/] {escape(reason)}")
                    continue
                show_result(tool, arguments, result, tools_directory)
                show_timing(Timing(started - began, listed - started, first, second))
                return True
    return False


async def all_tools(client: Client) -> list[Tool]:
    """Every page of tools/list."""
    page = await client.list_tools()
    tools = list(page.tools)
    while page.next_cursor is not None:
        page = await client.list_tools(cursor=page.next_cursor)
        tools += page.tools
    return tools


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> tuple[CallToolResult, float]:
    """The result, and the seconds it took; what the server is busy with is shown meanwhile.

    Raises:
        CallFailed: there is no usable result.
    """
    began = time.perf_counter()
    with console.status("calling") as status:

        async def show(progress: float, total: float | None, message: str | None) -> None:
            status.update(escape(message or "calling"))

        try:
            with anyio.fail_after(CALL_LIMIT):
                result = await client.call_tool(tool, arguments, progress_callback=show)
        except TimeoutError as exc:
            raise CallFailed(f"no answer within {CALL_LIMIT:.0f} s") from exc
        except MCPError as exc:
            raise CallFailed(str(exc)) from exc
    if result.is_error:
        raise CallFailed(text_of(result))
    return result, time.perf_counter() - began


def show_tools(tools: list[Tool], version: str | None) -> None:
    """Names, and the beginnings of descriptions."""
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    table.add_column(style="cyan", width=max((len(tool.name) for tool in tools), default=1))
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for tool in tools:
        table.add_row(tool.name, escape((tool.description or "").split(". ")[0].rstrip(".")))
    console.print(f"\n[bold]tools/list[/] {counted(len(tools), 'tool')} (MCP {version})")
    console.print(table, soft_wrap=False)


def show_result(tool: str, arguments: dict[str, Any], result: CallToolResult, tools_directory: Path) -> None:
    """What the tool answered, where it ran, and why there."""
    console.print(f"  [green]✓[/] {escape(text_of(result))}")
    about = (result.meta or {}).get(META_KEY, {})
    place = f"[bold]{about.get('engine', 'unknown')}[/] (isolation: {about.get('isolation', 'unknown')})"
    image = f" · image {about['image'][:80]}" if "image" in about else ""
    console.print(f"  ran on {place}{escape(image)}")
    for line in why(tool, arguments, tools_directory, about.get("engine", "")):
        console.print(f"  {escape(line)}")


def show_timing(timing: Timing) -> None:
    """The seconds, in milliseconds."""
    console.print(
        f"  start to first answer {timing.start * 1000:.0f} ms · tools/list {timing.listing * 1000:.0f} ms · "
        f"first call {timing.first_call * 1000:.0f} ms · second call {timing.second_call * 1000:.0f} ms"
    )


def why(tool: str, arguments: dict[str, Any], tools_directory: Path, ran_on: str) -> list[str]:
    """The choice of the engine, as `praxis-mcp explain` gives it."""
    try:
        considered = explain(tool, arguments, tools_directory)["considered"]
    except (subprocess.SubprocessError, ValueError, KeyError) as exc:
        return [f"why: `praxis-mcp explain` gave no answer ({type(exc).__name__})"]
    lines = []
    for item in considered:
        if item["engine"] == ran_on:  # whatever it answered when explain asked
            lines.append(f"why {ran_on}: the first that can do what the contract demands")
        elif item["reason"] != "chosen":
            lines.append(f"why not {item['engine']}: {item['reason']}")
        else:
            lines.append(f"why not {item['engine']}: nothing waited there for a call, and {ran_on} has the same image")
    return lines


def explain(tool: str, arguments: dict[str, Any], tools_directory: Path) -> dict[str, Any]:
    """What would run, where, and why there."""
    words = ["explain", tool, "--arguments", json.dumps(arguments), "--tools", str(tools_directory), "--json"]
    return json.loads(praxis(*words, timeout=EXPLAIN_LIMIT).stdout)


def praxis(*words: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """A command of praxis-mcp that succeeds.

    Raises:
        SubprocessError: it does not.
    """
    return subprocess.run(
        [str(SERVER), *words],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=True,
    )


def prepare_tools(place: Path, tools: Path) -> Path:
    """The tools to serve. Where the sandbox alone can run the first one, and has no image for it, a copy of them in
    `place` that names an image of the Python that runs this: no registry is needed."""
    tool, arguments = CANDIDATES[0]
    try:
        found = explain(tool, arguments, tools)
        if found["engine"] != "sandbox":
            return tools
        image = str(found["image"])
        stored = {
            str(item["name"]) for item in json.loads(praxis("image", "ls", "--json", timeout=EXPLAIN_LIMIT).stdout)
        }
        if image in stored:
            return tools
        if HOST_IMAGE not in stored:
            with console.status("making an image of this Python"):
                praxis("image", "from-host", HOST_IMAGE, PYTHON, timeout=CALL_LIMIT)
        shutil.copytree(tools, place / "tools")
        for contract in (place / "tools").rglob("contract.*"):
            text = contract.read_text(encoding="utf-8").replace(f"image: {image}", f"image: {HOST_IMAGE}")
            contract.write_text(text, encoding="utf-8")
    except (subprocess.SubprocessError, OSError, ValueError, KeyError) as exc:
        reason = getattr(exc, "stderr", None) or exc
        console.print(f"[yellow]Its tools could not be given an image of this Python:[/] {escape(str(reason).strip())}")
        return tools
    console.print(
        f"There is no container engine here, and no image {escape(image)}: its tools run in one of this machine's own "
        f"Python, made by\n  praxis-mcp image from-host {HOST_IMAGE} {escape(shlex.quote(PYTHON))}"
    )
    return place / "tools"


def environment() -> dict[str, str]:
    """What the server gets: this process's own, and at the end of the PATH the Python that runs this, because a
    machine whose Python is called python3.13 only has no `python3` for the sample tools."""
    path = [os.environ.get("PATH", os.defpath), str(SERVER.parent)]
    return {**os.environ, "PATH": os.pathsep.join(path)}


def text_of(result: CallToolResult) -> str:
    """All text of a result."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def short(path: Path) -> str:
    """The path from the project's root, where it is below."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def show_next_steps() -> None:
    """How to use the server from here, to be copied."""
    program = short(SERVER)
    for title, *words in (
        (
            "Use these tools in Claude Code, or another client (--help lists them):",
            "install",
            "claude-code",
            "--tools",
            short(TOOLS),
        ),
        ("A directory of tools of your own (docs/start.md):", "init", "my-tools"),
        ("What works on this machine, and what is missing:", "doctor", short(TOOLS)),
    ):
        console.print(f"\n[bold]{escape(title)}[/]\n  {escape(shlex.join([program, *words]))}")


def main() -> int:
    """0 where a call succeeded, else 1."""
    with (
        tempfile.TemporaryDirectory(prefix="praxis-demo-") as place,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
    ):
        try:
            succeeded = anyio.run(demonstrate, prepare_tools(Path(place), TOOLS), log)
            problem = "No tool could be called."
        except* (MCPError, OSError, TimeoutError) as group:
            succeeded = False
            problem = "The server did not start: " + "; ".join(str(exc) or type(exc).__name__ for exc in leaves(group))
        if succeeded:
            show_next_steps()
            return 0
        log.seek(0)
        console.print(f"\n[red]{escape(problem)}[/] The end of the server's log:")
        console.print(escape("".join(log.readlines()[-20:])))
        console.print("`praxis-mcp doctor` says what is missing on this machine and how to fix it.")
        return 1


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """The exceptions of a group, without the groups among them."""
    return [
        leaf for exc in group.exceptions for leaf in (leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc])
    ]


if __name__ == "__main__":
    write_in_any_encoding()
    raise SystemExit(main())
