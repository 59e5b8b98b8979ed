"""``praxis-mcp lint``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import (
    JsonOption,
    SettingsOptions,
    diagnostics_as_json,
    say_where_contracts_go,
    takes_settings,
)
from praxis_mcp.cli.terminal import console, echo_json, escape, say, table
from praxis_mcp.support.text import counted, printable

if TYPE_CHECKING:
    from praxis_mcp.diagnostics import Diagnostic


@takes_settings(directories=True)
def lint(
    options: SettingsOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="Check to leave out; may be given more than once.")
    ] = None,
    server_name: Annotated[
        str, typer.Option(help="What clients call this server; it counts for the length of names.")
    ] = "praxis-mcp",
    github: Annotated[
        bool, typer.Option("--github", help="Print annotations for GitHub Actions (workflow commands).")
    ] = False,
    as_json: JsonOption = False,
    list_checks: Annotated[bool, typer.Option("--list-checks", help="List the checks, and end.")] = False,
) -> None:
    """Check contracts for what clients would refuse, models would misunderstand, and contracts should not hold.

    What validate finds is found as well. A check is left out by --ignore, by lint.ignore in the settings, or by
    x-lint-ignore in a contract.

    Exit code 1 where there is an error, with --strict a warning; 2 where the command was refused.

    Example: praxis-mcp lint tools --strict --ignore no-examples
    """
    if list_checks:
        _list(as_json)
        return
    import anyio

    from praxis_mcp.checks.lint import failing
    from praxis_mcp.checks.lint import lint as lint_contracts
    from praxis_mcp.checks.table import known_codes

    settings = options.read()
    ignored = known_codes(ignore or (), "--ignore") | known_codes(settings.lint.ignore, "lint.ignore of the settings")
    done = anyio.run(lint_contracts, settings, server_name, ignored)
    failed = failing(done.findings, strict=strict)
    if as_json:
        found = diagnostics_as_json(done.findings)
        echo_json({"passed": not failed, "tools": done.tools, "ignored": done.ignored, "findings": found})
        raise typer.Exit(1 if failed else 0)
    for item in map(_here, done.findings):
        if github:
            say(_annotation(item))
        else:
            say(f"{item} ({item.code})", fg="red" if item.is_error else "yellow")
    if not done.tools and not done.findings:
        say_where_contracts_go(settings)
    errors = sum(item.is_error for item in done.findings)
    warnings = len(done.findings) - errors
    left_out = f", {done.ignored} ignored" if done.ignored else ""
    say(f"{counted(done.tools, 'tool')}, {counted(errors, 'error')}, {counted(warnings, 'warning')}{left_out}")
    raise typer.Exit(1 if failed else 0)


def _here(item: Diagnostic) -> Diagnostic:
    """The finding with the path of its file from here, where it is below here."""
    here = Path.cwd()
    if item.path is None or not item.path.is_relative_to(here):
        return item
    return replace(item, path=item.path.relative_to(here))


def _annotation(item: Diagnostic) -> str:
    """A finding as a workflow command of GitHub Actions, which shows it at its line of a pull request."""
    properties = {"title": item.code}
    if item.path is not None:
        properties = {"file": str(item.path), **properties}
        if item.line:
            properties |= {"line": str(item.line), "col": str(item.column)}
    shown = ",".join(f"{name}={_escaped(value, in_property=True)}" for name, value in properties.items())
    text = " ".join(part for part in (f"[{item.field}]" if item.field else "", item.message, item.remedy) if part)
    return f"::{item.severity.value} {shown}::{_escaped(text)}"


def _escaped(text: str, *, in_property: bool = False) -> str:
    # GitHub's own escapes; whatever a contract holds, it makes no command of its own.
    text = printable(text).replace("%", "%25")
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text


def _list(as_json: bool) -> None:
    from praxis_mcp.checks.table import CHECKS

    if as_json:
        echo_json(
            [{"code": code, "level": check.severity.value, "finds": check.finds} for code, check in CHECKS.items()]
        )
        return
    rows = table("check", "level", "finds")
    for code, check in CHECKS.items():
        rows.add_row(code, check.severity.value, escape(check.finds))
    console().print(rows)
