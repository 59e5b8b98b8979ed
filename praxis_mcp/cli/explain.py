"""``praxis-mcp explain``: the plan of a call, and which engine would run it, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from praxis_mcp.cli.common import JsonOption, SettingsOptions, run_with_toolbox, takes_settings
from praxis_mcp.cli.terminal import console, echo_json, escape
from praxis_mcp.cli.tool_call import ArgumentsOption, ToolArgument, WordsArgument, open_tool, read_arguments

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
    from praxis_mcp.execution.facts import limit_in_words

    out = console()
    out.print(
        f"[green]✓[/] [bold]{escape(facts['tool'])}[/] is the tool {escape(facts['tool_there'])} of the upstream "
        f"[bold]{escape(facts['upstream'])}[/] ({escape(facts['address'])}, {facts['protocol']})"
    )
    for name, value in facts["limits"].items():
        _, words, text, _ = limit_in_words(name, value)
        out.print(f"  {words} {text}")
    for note in facts["adapted"]:
        out.print(f"  {escape(note)}")


def _print(facts: dict[str, Any], pull: str) -> None:
    from rich.table import Table

    from praxis_mcp.execution.facts import in_words

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for fact, name, text, tone in in_words(facts, pull):
        if tone == "good":
            name = f"[green]✓[/] {name}"
        elif fact == "considered":
            name = f"[red]✗[/] {name}"
        elif tone:
            name = f"[{'red' if tone == 'bad' else 'yellow'}]{name}[/]"
        table.add_row(name, escape(text))
    console().print(table)
