"""``praxis-mcp validate``, ``test`` and ``schema``: for authors of contracts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import (
    JsonOption,
    SettingsOptions,
    diagnostics_as_json,
    print_error,
    print_findings,
    run_with_toolbox,
    say_where_contracts_go,
    takes_settings,
)
from praxis_mcp.cli.terminal import echo_json, say
from praxis_mcp.cli.tool_call import find_tool
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from praxis_mcp.diagnostics import Diagnostic
    from praxis_mcp.execution.result_checks import ExampleOutcome
    from praxis_mcp.execution.toolbox import Toolbox


@takes_settings(directories=True)
def validate(
    options: SettingsOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check contracts; say what is wrong, in which file and line, and how to fix it. Exit code 1 if any is wrong."""
    settings = options.read()
    # What is approved is another question than what is right.
    settings = settings.model_copy(update={"reload": True})

    async def work(toolbox: Toolbox) -> tuple[int, tuple[Diagnostic, ...]]:
        from praxis_mcp.plans.planning import find_mount_warnings

        entries = toolbox.catalog.entries()
        here = [item for entry in entries for item in await find_mount_warnings(entry.contract, settings)]
        return len(entries), (*toolbox.catalog.diagnostics, *here)

    count, diagnostics = run_with_toolbox(settings, work)
    failed = any(item.is_error or strict for item in diagnostics)
    if as_json:
        echo_json({"valid": not failed, "tools": count, "diagnostics": diagnostics_as_json(diagnostics)})
    else:
        for item in diagnostics:
            say(str(item), fg="red" if item.is_error else "yellow")
        if not count and not diagnostics:
            say_where_contracts_go(settings)
        errors = sum(item.is_error for item in diagnostics)
        warnings = len(diagnostics) - errors
        say(f"{counted(count, 'tool')} usable, {counted(errors, 'error')}, {counted(warnings, 'warning')}")
    raise typer.Exit(1 if failed else 0)


@takes_settings()
def run_examples(
    options: SettingsOptions,
    names: Annotated[list[str] | None, typer.Argument(help="Tools (default: all).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the examples in contracts as tests.

    Exit code 1 if one fails, if nothing ran, or, where no tools are named, if a contract is broken.
    """
    settings = options.read()

    async def work(toolbox: Toolbox) -> tuple[list[ExampleOutcome], bool]:
        from praxis_mcp.execution.result_checks import run_example

        entries = [await find_tool(toolbox, name) for name in names] if names else toolbox.catalog.entries()
        broken = print_findings(() if names else toolbox.catalog.diagnostics)
        outcomes = []
        for entry in entries:
            if not entry.contract.examples:
                say(f"{entry.name} has no examples", fg="yellow", err=True)
            for number in range(len(entry.contract.examples)):
                outcome = await run_example(toolbox.runner, entry.contract, number)
                outcomes.append(outcome)
                if not as_json:
                    _print(outcome)
        return outcomes, broken

    outcomes, broken = run_with_toolbox(settings, work)
    failed = sum(not outcome.passed for outcome in outcomes)
    if as_json:
        echo_json([{**asdict(item), "passed": item.passed} for item in outcomes])
    else:
        say(f"{len(outcomes) - failed} passed, {failed} failed")
    if not outcomes:
        print_error("Nothing was tested.", "Write examples: into a contract; praxis-mcp list shows the tools.")
    raise typer.Exit(1 if failed or broken or not outcomes else 0)


def _print(outcome: ExampleOutcome) -> None:
    say("✓ " if outcome.passed else "✗ ", fg="green" if outcome.passed else "red", nl=False)
    where = f" ({outcome.engine}, {outcome.seconds * 1000:.0f} ms)" if outcome.engine else ""
    say(f"{outcome.tool}: {outcome.example}{where}")
    for problem in outcome.problems:
        say(f"    {problem}")


def schema() -> None:
    """Print the JSON Schema of the contract format, for editors."""
    from praxis_mcp.contracts.schemas.format_schema import contract_format_schema

    echo_json(contract_format_schema())
