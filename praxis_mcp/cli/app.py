"""The command line's root: every command, by name."""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from praxis_mcp.cli import (
    audit,
    authoring,
    build,
    call,
    contracts,
    dev,
    doctor,
    examples,
    explain,
    health,
    images,
    importing,
    init,
    install,
    lint,
    listing,
    lock,
    new,
    runs,
    serve,
    token,
    trust,
    upstreams,
)
from praxis_mcp.cli.terminal import say


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


app = typer.Typer(
    name="praxis-mcp",
    cls=Root,
    help="Turn a directory of tool contracts into containerized tools for LLM agents, over MCP.\n\n"
    "A command ends with 0, or 1 where it found something wrong, 2 where it was refused, 125 where an engine failed, "
    "130 where it was interrupted; a call ends with the tool's own exit code.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a defect is reported by its plain traceback; locals hold arguments and secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("init")(init.init)
app.command("new")(new.new)
app.command("install")(install.install)
app.command("uninstall")(install.uninstall)
app.command("serve")(serve.serve)
app.command("console")(serve.console)
app.command("list")(listing.list_tools)
app.command("call")(call.call)
app.command("explain")(explain.explain)
app.command("validate")(authoring.validate)
app.command("build")(build.build)
app.command("dev")(dev.dev)
app.command("lock")(lock.lock)
app.command("test")(examples.run_examples)
app.command("lint")(lint.lint)
app.command("doctor")(doctor.doctor)
app.command("health")(health.health)
app.command("trust")(trust.trust)
app.command("schema")(authoring.schema)
app.add_typer(importing.app)
app.add_typer(images.app)
app.add_typer(runs.app)
app.add_typer(audit.app)
app.add_typer(contracts.app, name="contracts")
app.add_typer(upstreams.app, name="upstreams")
app.add_typer(token.commands, name="token")

for group in (app, importing.app, images.app, runs.app, audit.app, contracts.app, upstreams.app, token.commands):
    for command in group.registered_commands:
        # Rich keeps a docstring's line breaks, wherever they fall in a terminal's width: only paragraphs are meant.
        text = inspect.getdoc(command.callback) or ""
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"praxis-mcp {version('praxis-mcp')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that need no command."""
