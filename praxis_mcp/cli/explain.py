"""``praxis-mcp explain``: the plan of a call, and which engine would run it, without running it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from praxis_mcp.cli.common import JsonOption, SettingsOptions, missing_image, run_with_toolbox, takes_settings
from praxis_mcp.cli.terminal import console, echo_json, escape
from praxis_mcp.cli.tool_call import ArgumentsOption, ToolArgument, WordsArgument, open_tool, read_arguments
from praxis_mcp.support.text import counted, size_in_words

if TYPE_CHECKING:
    from praxis_mcp.execution.toolbox import Toolbox


@takes_settings()
def explain(
    options: SettingsOptions,
    name: ToolArgument,
    words: WordsArgument = None,
    given: ArgumentsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a call would run, where, under which limits, and why on that engine, without running it.

    <NAME> stands for an argument that is required and was not given.

    Example: praxis-mcp explain word_counter text='one two'
    """
    settings = options.read()

    async def work(toolbox: Toolbox) -> dict[str, Any]:
        from praxis_mcp.contracts.catalog.catalog import CatalogEntry
        from praxis_mcp.execution.facts import facts_of, upstream_facts_of

        async with open_tool(toolbox, name) as tool:
            arguments = read_arguments(dict(tool.input_schema), words, given)
            if isinstance(tool, CatalogEntry):
                return facts_of(await toolbox.runner.explain(name, arguments))
            return upstream_facts_of(tool, toolbox)

    facts = run_with_toolbox(settings, work, starts_ahead=True)  # which it tells of; before a call nothing is started
    if as_json:
        echo_json(facts)
    elif "upstream" in facts:
        _print_upstream(facts)
    else:
        _print(facts, settings.pull)


def _print_upstream(facts: dict[str, Any]) -> None:
    out = console()
    out.print(
        f"[green]✓[/] [bold]{escape(facts['tool'])}[/] is the tool {escape(facts['tool_there'])} of the upstream "
        f"[bold]{escape(facts['upstream'])}[/] ({escape(facts['address'])}, {facts['protocol']})"
    )
    for name, value in facts["limits"].items():
        out.print(f"  {' '.join(_limit(name, value))}")
    for note in facts["adapted"]:
        out.print(f"  {escape(note)}")


def _print(facts: dict[str, Any], pull: str) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name in facts["placeholders"]:
        table.add_row("not given", escape(f"{name}: <{name}> stands for it"))
    for item in facts["considered"]:
        chosen = item["engine"] == facts["engine"]
        mark, text = ("[green]✓[/]", "runs it") if chosen else ("[red]✗[/]", escape(item["reason"]))
        table.add_row(f"{mark} {item['engine']}", text)
    if facts["image"] is not None and facts["engine"] is not None and facts["spill"]["is_possible"]:
        table.add_row("where it would wait", escape(_elsewhere(facts)))
    if (can_wait := facts["warm"]["can_wait"]) is not None:
        yes = "what runs a call is started ahead of it, once the tool was called"
        table.add_row("warm", yes if can_wait else escape(f"no: {facts['warm']['reason']}"))
    if facts["engine"] is None:
        table.add_row("[red]engine[/]", "none: the call would be refused (what is missing: praxis-mcp doctor)")
    if facts["isolation"] == "process":
        table.add_row("[yellow]isolation[/]", "none: a plain process of this user (why: praxis-mcp doctor)")
    elif facts["isolation"] is not None:
        table.add_row("isolation", escape(facts["isolation"]))
    if facts["caution"] is not None:
        table.add_row("[yellow]caution[/]", escape(facts["caution"]))
    plain = {**facts, "command": shlex.join(facts["command"]) if facts["command"] else None}
    if facts["image_is_missing"]:
        plain["image"] += f" ({missing_image(pull, is_built=facts['build'] is not None)})"
    for name in ("image", "command", "working_dir", "network", "user", "stdin_bytes"):
        # A request is the network itself: its "network: none" would say the opposite of what it does.
        if plain[name] is not None and not (name == "network" and facts["request"] is not None):
            table.add_row(name.replace("_", " "), escape(str(plain[name])))
    if (request := facts["request"]) is not None:
        table.add_row("request", escape(f"{request['method']} {request['url']}"))
        for name, value in request["headers"].items():
            table.add_row("header", escape(f"{name}: {value}"))
        if request["body_bytes"] is not None:
            table.add_row("body", counted(request["body_bytes"], "byte"))
    if (build := facts["build"]) is not None:
        made = build["dockerfile"] or ", ".join(filter(None, (build["requirements"], *build["packages"])))
        base = f" on top of {build['base']}" if build["base"] else ""
        table.add_row("built from", escape(f"{made}{base}; network of the build: {build['network']}"))
    if facts["execution"] != "call":
        again = ", run again where its server died" if facts["retry"] == "safe" else ""
        whose = "" if facts["execution"] == "task" else " for clients that speak the tasks extension"
        table.add_row("execution", f"a task{whose}{again} (docs/tasks.md)")
    for name, value in facts["env"].items():
        table.add_row("env", escape(f"{name}={value}"))
    for place, size in facts["files"].items():
        table.add_row("file", escape(f"{place} ({'not given' if size is None else counted(size, 'byte')})"))
    for mount in facts["mounts"]:
        table.add_row("mount", escape(mount))
    for pattern in facts["artifacts"]:
        table.add_row("artifacts", escape(pattern))
    for name, value in facts["limits"].items():
        table.add_row(*_limit(name, value))
    table.add_row("demands", ", ".join(facts["demands"]))
    console().print(table)


def _elsewhere(facts: dict[str, Any]) -> str:
    """Where a call runs that nothing waits for on the first engine."""
    spill = facts["spill"]
    if spill["engine"] is None:
        return f"it stays: {spill['reason']}"
    return f"{spill['engine']} runs it at once, with the same image ({spill['image']}), unless engines.spill is false"


def _limit(name: str, value: float | None) -> tuple[str, str]:
    """A limit's name and value, for people: ``memory``, ``64 MiB``."""
    words = name.removesuffix("_bytes").removesuffix("_s").replace("_", " ")
    if value is None:
        return words, "no limit"
    if name.endswith("_s"):
        return words, f"{value:,g} s"
    if not name.endswith("_bytes"):
        return words, f"{value:,}"
    return words, size_in_words(value)
