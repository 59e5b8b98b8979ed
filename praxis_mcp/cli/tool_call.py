"""The call that a command line describes: the tool that it names, of a contract or an upstream, and its arguments."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import anyio.to_thread
import typer

from praxis_mcp.cli.completion import complete_tool, complete_word
from praxis_mcp.errors import ArgumentError, UnknownToolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from praxis_mcp.contracts.catalog.catalog import CatalogEntry
    from praxis_mcp.diagnostics import Diagnostic
    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.federation.upstreams import Entry, Upstreams

_SAMPLES = {"object": """'{"a": 1}'""", "array": """'[1, "b"]'""", "integer": "1", "number": "1.5", "boolean": "true"}
"""How a value of each type is written for a shell."""

_ARGUMENTS_REMEDY = """Write --arguments '{"key": "value"}', or --arguments @FILE (@- is standard input)."""

ToolArgument = Annotated[str, typer.Argument(help="The tool.", autocompletion=complete_tool)]
ToolsArgument = Annotated[list[str] | None, typer.Argument(help="Tools (default: all).", autocompletion=complete_tool)]
WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Arguments, read by the types that the tool declares.",
        autocompletion=complete_word,
    ),
]
ArgumentsOption = Annotated[
    str | None,
    typer.Option("--arguments", help="Arguments as a JSON object, or @FILE that holds one; @- is standard input."),
]


@asynccontextmanager
async def connected_upstreams(upstreams: Upstreams, patience: float = math.inf) -> AsyncIterator[None]:
    """Meanwhile the upstreams of the settings are connected; each has listed its tools, or could not be reached, or
    `patience` (seconds) is over."""
    from praxis_mcp.support.tasks import unwrapped

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(upstreams.run)
            with anyio.move_on_after(patience):
                await upstreams.wait_attempted()
            yield
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_tool(toolbox: Toolbox, name: str) -> AsyncIterator[Entry]:
    """The tool of that name: of a contract, else of an upstream, all of which are connected meanwhile.

    Raises:
        UnknownToolError: see `find_tool`.
    """
    try:
        tool = await find_tool(toolbox, name)
    except UnknownToolError as exc:
        if not toolbox.settings.upstreams:
            raise
        async with connected_upstreams(toolbox.upstreams):
            remote = await toolbox.relays.find(name)
            if remote is None:
                if silent := _silent_upstream(toolbox, name):
                    raise UnknownToolError(f"{exc.message} {silent}") from exc
                raise
            yield remote
    else:
        yield tool


def _silent_upstream(toolbox: Toolbox, name: str) -> str:
    """What is wrong with an upstream whose tools have names that begin so, if any."""
    from praxis_mcp.federation.upstreams import prefix_of

    for report in toolbox.upstreams.reports():
        if report.trouble and name.startswith(prefix_of(report.name, toolbox.settings.upstreams[report.name])):
            return f"It may be one of the upstream {report.name}, which has no list of tools: {report.trouble}"
    return ""


async def find_tool(toolbox: Toolbox, name: str) -> CatalogEntry:
    """The tool of that name, from a contract.

    Raises:
        UnknownToolError: there is none. Says what is wrong with its contract where that is left out for an error, why
            it is held back, and which directory of contracts is missing. Agents do not learn that: paths of the server
            are not their business.
    """
    try:
        return toolbox.catalog.get(name)
    except UnknownToolError as exc:
        from praxis_mcp.contracts.catalog.approvals import HeldBack

        held = [item for item in toolbox.catalog.diagnostics if isinstance(item, HeldBack) and item.tool == name]
        if held:
            raise UnknownToolError(held[0].message, remedy=held[0].remedy) from exc
        errors = [item for item in toolbox.catalog.diagnostics if item.is_error]
        reason = await anyio.to_thread.run_sync(_explained, exc, name, errors)
        raise reason from exc


def _explained(unknown: UnknownToolError, name: str, errors: Sequence[Diagnostic]) -> UnknownToolError:
    own = [str(item) for item in errors if item.path is not None and _is_of(item.path, name)]
    if own:
        return UnknownToolError("\n  ".join([f"{name} is left out, because its contract is broken:", *own]))
    missing = [item for item in errors if item.path is not None and not item.path.exists()]
    if missing:
        sentences = [item.message for item in missing]
        return UnknownToolError(" ".join([*sentences, unknown.message]), remedy=missing[0].remedy)
    return unknown


def _is_of(path: Path, name: str) -> bool:
    """Whether the file seems meant as that tool's: it is named so, or says so where it can still be read."""
    from praxis_mcp.contracts.discovery import read_bytes

    if name in (path.name.partition(".")[0], path.parent.name):
        return True
    try:
        text = read_bytes(path).decode(errors="replace")
    except OSError:
        return False
    # At the top level: of YAML, of JSON on one line, or of indented JSON.
    own_key = r"^(?:name|['\"]name['\"]|\{? {0,4}\"name\")"
    value = rf"\s*:\s*['\"]?{re.escape(name)}['\"]?\s*(?:,|#|\}}|$)"
    return re.search(own_key + value, text, re.MULTILINE) is not None


def read_arguments(schema: dict[str, Any], words: list[str] | None, given: str | None) -> dict[str, Any]:
    """The arguments of a call.

    Args:
        schema: the tool's input schema, by whose types the words are read.
        words: ``key=value``; these win over what `given` says.
        given: a JSON object, or ``@`` and the file that holds one (``@-``: standard input).

    Raises:
        ArgumentError: one of them cannot be read.
    """
    arguments = _read_object(given) if given is not None else {}
    seen: set[str] = set()
    for word in words or ():
        name, equals, text = word.partition("=")
        if not equals:
            raise ArgumentError(f'"{word}" is not an argument.', remedy="Write key=value, or --arguments JSON.")
        if name in seen:
            raise ArgumentError(
                f'"{name}" is given twice.', remedy='Give it once; for a list, write key=\'["a", "b"]\'.'
            )
        seen.add(name)
        arguments[name] = _typed(name, text, schema.get("properties", {}).get(name, {}))
    return arguments


def _typed(name: str, text: str, schema: dict[str, Any]) -> Any:
    kinds = schema.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "string" in kinds:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        from praxis_mcp.contracts.problems import allowed_types, shape

        secret = schema.get("writeOnly") is True or schema.get("format") == "password"
        given = "what was given" if secret else shape(text)
        sample = _SAMPLES.get(kinds[0]) if kinds else None
        raise ArgumentError(
            f'"{name}" must be {allowed_types(kinds)}, and {given} is not.',
            remedy=f"Write {name}={sample}." if sample else None,
        ) from exc


def _read_object(given: str) -> dict[str, Any]:
    text = given
    try:
        if given.startswith("@"):
            data = sys.stdin.buffer.read() if given == "@-" else Path(given[1:]).read_bytes()
            text = data.decode("utf-8-sig")
        value = json.loads(text)
    except OSError as exc:
        raise ArgumentError(f"--arguments: {given[1:]} cannot be read: {exc.strerror}.") from exc
    except (ValueError, RecursionError) as exc:
        raise ArgumentError(f"--arguments is not valid JSON: {exc}.", remedy=_ARGUMENTS_REMEDY) from exc
    if not isinstance(value, dict):
        raise ArgumentError("--arguments must be a JSON object.", remedy=_ARGUMENTS_REMEDY)
    return value
