"""``praxis-mcp validate`` and ``schema``: for authors of contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import (
    JsonOption,
    SettingsOptions,
    diagnostics_as_json,
    run_with_toolbox,
    say_where_contracts_go,
    takes_settings,
)
from praxis_mcp.cli.terminal import echo_json, say
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from praxis_mcp.diagnostics import Diagnostic
    from praxis_mcp.execution.toolbox import Toolbox


@takes_settings(directories=True)
def validate(
    options: SettingsOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check contracts; say what is wrong, in which file and line, and how to fix it. Exit code 1 if any is wrong.

    Example: praxis-mcp validate my-tools --strict
    """
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


def schema(
    settings: Annotated[
        bool, typer.Option("--settings", help="That of praxis.yaml: every setting, and its default.")
    ] = False,
) -> None:
    """Print the JSON Schema of the contract format, for editors.

    Example: praxis-mcp schema > contract.schema.json
    """
    if settings:
        from praxis_mcp.settings.model import Settings

        echo_json(Settings.model_json_schema())
    else:
        from praxis_mcp.contracts.schemas.format_schema import contract_format_schema

        echo_json(contract_format_schema())
