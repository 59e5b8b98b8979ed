"""The command line's root: every command, by name."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from praxis_mcp.cli.terminal import say

TAKES_ARGUMENTS = ("call", "explain")
"""Commands whose last words are arguments of a tool."""
_OTHER_WORDS = {"run": "call", "create": "new", "add": "new", "check": "validate", "start": "serve", "ls": "list"}
"""What other programs call it, and no letters lead to: ``run`` is near to ``runs`` only."""


class Root(TyperGroup):
    """The commands, whose options are refused in sentences: pydantic, by which Typer reads them, puts the kind of an
    error in front."""

    def invoke(self, ctx: Any) -> Any:
        """See the base."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as exc:
            exc.message = exc.message.removeprefix("Value error, ")
            raise
        except Exception as exc:
            # That there is no such option, of which Typer has no public name.
            if ctx.invoked_subcommand in TAKES_ARGUMENTS and hasattr(exc, "possibilities"):
                unknown: Any = exc
                name = unknown.option_name.lstrip("-").replace("-", "_")
                unknown.message += f". Arguments of the tool are written without dashes: {name}=VALUE"
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See the base."""
        try:
            return super().resolve_command(ctx, args)
        except Exception as exc:
            if args and (meant := _OTHER_WORDS.get(args[0])) is not None:
                unknown: Any = exc
                unknown.message = f"No such command '{args[0]}'. Did you mean '{meant}'?"
            raise


COMMANDS = {
    "init": "init:init",
    "new": "new:new",
    "install": "install:install",
    "uninstall": "install:uninstall",
    "serve": "serve:serve",
    "console": "serve:console",
    "list": "listing:list_tools",
    "call": "call:call",
    "explain": "explain:explain",
    "validate": "authoring:validate",
    "build": "build:build",
    "dev": "dev:dev",
    "lock": "lock:lock",
    "test": "examples:run_examples",
    "lint": "lint:lint",
    "doctor": "doctor:doctor",
    "health": "health:health",
    "trust": "trust:trust",
    "schema": "authoring:schema",
    "import": "importing:app",
    "image": "images:app",
    "runs": "runs:app",
    "audit": "audit:app",
    "contracts": "contracts:app",
    "upstreams": "upstreams:app",
    "token": "token:commands",
}
"""Name → module of this room, and there the function of a command, or the Typer of several."""


def make_app(only: str | None = None) -> typer.Typer:
    """The commands.

    Args:
        only: the one that is to be run: then no other is imported, of which all together cost a start 60 ms of CPU on
            a busy machine. A name that is not among them, or None: all.
    """
    app = typer.Typer(
        name="praxis-mcp",
        cls=Root,
        help="Turn a directory of tool contracts into containerized tools for LLM agents, over MCP.\n\n"
        "A command ends with 0, or 1 where it found something wrong, 2 where it was refused, 125 where an engine "
        "failed, 130 where it was interrupted; a call ends with the tool's own exit code.",
        no_args_is_help=True,
        # A defect is reported by its plain traceback: locals hold arguments and secrets.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    for name in (only,) if only in COMMANDS else COMMANDS:
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(importlib.import_module(f"praxis_mcp.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
            new = found.registered_commands
        else:
            app.command(name)(found)
            new = app.registered_commands[-1:]
        for command in new:
            # Rich keeps a docstring's line breaks, wherever they fall in a terminal's width: only paragraphs are meant.
            text = inspect.getdoc(command.callback) or ""
            command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", text)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"praxis-mcp {version('praxis-mcp')}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that need no command."""
