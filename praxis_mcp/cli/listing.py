"""``praxis-mcp list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from praxis_mcp.cli.common import (
    ConfigOption,
    DirectoriesArgument,
    JsonOption,
    LogLevelOption,
    console,
    echo_json,
    friendly_errors,
    read_settings,
    run_with_toolbox,
)

if TYPE_CHECKING:
    from praxis_mcp.contracts.catalog import CatalogEntry
    from praxis_mcp.diagnostics import Diagnostic
    from praxis_mcp.execution.toolbox import Toolbox


def list_tools(
    directories: DirectoriesArgument = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tools, and what is wrong with contracts that are not among them."""
    with friendly_errors():
        settings = read_settings(config, directories, log_level)

        async def read(toolbox: Toolbox) -> tuple[tuple[CatalogEntry, ...], tuple[Diagnostic, ...]]:
            return toolbox.catalog.entries(), toolbox.catalog.diagnostics

        entries, diagnostics = run_with_toolbox(settings, read)
        if as_json:
            tools = [
                {
                    "name": entry.name,
                    "title": entry.title,
                    "description": entry.description,
                    "inputSchema": entry.input_schema,
                    "outputSchema": entry.output_schema,
                    "engine": entry.contract.engine.value,
                    "source": str(entry.source),
                }
                for entry in entries
            ]
            echo_json({"tools": tools, "diagnostics": [describe(item) for item in diagnostics]})
            return
        console().print(_table(entries))
        for item in diagnostics:
            typer.echo(str(item), err=True)


def _table(entries: tuple[CatalogEntry, ...]) -> object:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for title in ("tool", "engine"):
        table.add_column(title, no_wrap=True)
    table.add_column("arguments", overflow="fold", max_width=32)
    table.add_column("description", no_wrap=True, overflow="ellipsis", ratio=1)
    for entry in entries:
        required = set(entry.input_schema.get("required", ()))
        names = [name if name in required else f"[{name}]" for name in entry.input_schema.get("properties", {})]
        first_line = (entry.description or "").strip().split("\n")[0]
        table.add_row(entry.name, entry.contract.engine.value, escape(" ".join(names)), escape(first_line))
    return table


def describe(item: Diagnostic) -> dict[str, object]:
    """A diagnostic, as JSON."""
    return {
        "severity": item.severity.value,
        "path": str(item.path) if item.path else None,
        "line": item.line,
        "column": item.column,
        "field": item.field,
        "message": item.message,
        "remedy": item.remedy,
    }
