"""``praxis-mcp list``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from praxis_mcp.cli.common import (
    JsonOption,
    SettingsOptions,
    ToolsetOption,
    diagnostics_as_json,
    print_findings,
    run_with_toolbox,
    say_where_contracts_go,
    takes_settings,
)
from praxis_mcp.cli.terminal import console, echo_json, escape, say, table
from praxis_mcp.cli.tool_call import connected_upstreams
from praxis_mcp.support.text import counted, size_in_words

if TYPE_CHECKING:
    from praxis_mcp.contracts.catalog.catalog import Catalog
    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.federation.upstreams import Entry, UpstreamReport
    from praxis_mcp.serving.mcp.costs import Cost


@takes_settings(directories=True)
def list_tools(options: SettingsOptions, toolset: ToolsetOption = None, as_json: JsonOption = False) -> None:
    """List the tools of contracts and upstreams, what each costs an agent, and what keeps others from being served.

    Bytes are those of its definition in tools/list. Tokens, of a model's context, are estimated: a token for four bytes
    of name, description and input schema. Where tools are searched, what a client is shown of them is counted as well.

    Exit code 1 where a contract is broken or a directory of contracts is missing.

    Example: praxis-mcp list my-tools --json
    """
    settings = options.read(server={"toolsets": toolset} if toolset else None)

    from praxis_mcp.serving.mcp.costs import Cost, costs_of
    from praxis_mcp.serving.mcp.search_tools import costs_of_shown
    from praxis_mcp.serving.toolsets import Toolsets

    async def read(
        toolbox: Toolbox,
    ) -> tuple[Sequence[Entry], dict[str, Cost] | None, Catalog, tuple[UpstreamReport, ...]]:
        own = toolbox.catalog.entries()
        async with connected_upstreams(toolbox.upstreams):
            tools = Toolsets(settings).listed(toolbox.upstreams.merged_with(own))
            return tools, costs_of_shown(toolbox, tools), toolbox.catalog, toolbox.upstreams.reports()

    entries, shown, catalog, upstreams = run_with_toolbox(settings, read)
    diagnostics = catalog.diagnostics
    costs = costs_of(entries, settings)
    total = sum(costs.values(), Cost())
    paid = sum((shown or costs).values(), Cost())
    if as_json:
        listed = [
            {
                "name": entry.name,
                "title": entry.title,
                "description": entry.description,
                "inputSchema": entry.input_schema,
                "outputSchema": entry.output_schema,
                **asdict(costs.get(entry.name, Cost())),
                **_origin(entry, upstreams),
            }
            for entry in entries
        ]
        troubles = {item.name: item.trouble for item in upstreams if item.trouble}
        disabled = [{"name": item.name, "by": item.by, "source": str(item.source)} for item in catalog.disabled]
        found = diagnostics_as_json(diagnostics)
        searched = None if shown is None else {"shown": sorted(shown), **asdict(paid)}
        echo_json(
            {
                "tools": listed,
                **asdict(total),
                "search": searched,
                "disabled": disabled,
                "diagnostics": found,
                "upstreams": troubles,
            }
        )
    else:
        if entries:
            console().print(_table(entries, upstreams, costs))
            tools, size = counted(len(entries), "tool"), size_in_words(total.bytes)
            say(f"{tools}: {size} in tools/list, about {total.tokens:,} tokens of a model's context", err=True)
        if shown is not None:
            few = f"{counted(len(shown), 'tool')}, {size_in_words(paid.bytes)}, about {paid.tokens:,} tokens"
            say(f"They are searched: an agent is shown {few}, and finds the others by find_tool", err=True)
        print_findings(diagnostics)
        for item in catalog.disabled:
            say(f"{item.name} is disabled: {item.by} ({item.source})", err=True)
        if not entries and not diagnostics and not upstreams and not catalog.disabled:
            say_where_contracts_go(settings)
        for item in upstreams:
            if item.trouble:
                say(f"the upstream {item.name} has no list of tools: {item.trouble}", err=True)
            if item.held:
                held = counted(len(item.held), "tool")
                say(f"{held} of the upstream {item.name} held back: praxis-mcp upstreams list", err=True)
    raise typer.Exit(1 if any(item.is_error for item in diagnostics) else 0)


def _origin(entry: Entry, upstreams: Sequence[UpstreamReport]) -> dict[str, Any]:
    from praxis_mcp.contracts.model import EngineType
    from praxis_mcp.execution.relays import engine_name
    from praxis_mcp.federation.remote_tools import RemoteTool

    if isinstance(entry, RemoteTool):
        address = next(item.address for item in upstreams if item.name == entry.upstream)
        return {"engine": engine_name(entry), "source": address}
    engine = entry.contract.engine
    # Under dagger stands every image that does not insist on an engine: which one runs it is decided by what is there.
    return {"engine": "container" if engine is EngineType.DAGGER else engine.value, "source": str(entry.source)}


def _table(entries: Sequence[Entry], upstreams: Sequence[UpstreamReport], costs: Mapping[str, Cost]) -> object:
    # On a terminal a tool is a line or two; in a pipe nothing is cut.
    fits = sys.stdout.isatty()
    rows = table()
    rows.expand = fits
    for title in ("tool", "engine"):
        rows.add_column(title, no_wrap=True)
    for title in ("bytes", "tokens"):
        rows.add_column(title, no_wrap=True, justify="right")
    rows.add_column("arguments", overflow="fold", max_width=32 if fits else None)
    rows.add_column("description", no_wrap=True, overflow="ellipsis", ratio=1 if fits else None)
    for entry in entries:
        required = set(entry.input_schema.get("required", ()))
        names = [name if name in required else f"[{name}]" for name in entry.input_schema.get("properties", {})]
        first_line = (entry.description or "").strip().split("\n")[0]
        cost = costs.get(entry.name)  # None for a tool that older clients are not sent
        numbers = (str(cost.bytes), str(cost.tokens)) if cost else ("-", "-")
        engine = _origin(entry, upstreams)["engine"]
        rows.add_row(entry.name, engine, *numbers, escape(" ".join(names)), escape(first_line))
    return rows
