"""``praxis-mcp install`` and ``uninstall``: this server in the lists of MCP clients."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from praxis_mcp.cli.common import JsonOption, SettingsOptions, friendly_errors, say_where_contracts_go, takes_settings
from praxis_mcp.cli.terminal import console, echo_json, escape, say, table
from praxis_mcp.clients import Scope
from praxis_mcp.errors import ArgumentError

if TYPE_CHECKING:
    from praxis_mcp.clients.changes import Change
    from praxis_mcp.clients.model import Client, Server
    from praxis_mcp.settings.model import Settings


def _complete_client(incomplete: str) -> list[str]:
    from praxis_mcp.clients.known import CLIENTS

    return [name for name in CLIENTS if name.startswith(incomplete)]


ClientsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CLIENT",
        help="claude-code, claude-desktop, cursor, vscode, codex, gemini-cli, windsurf, zed or opencode (default: list "
        "where each keeps its servers).",
        autocompletion=_complete_client,
    ),
]
NameOption = Annotated[str, typer.Option("--name", "-n", help="What the client calls the server.")]
ScopeOption = Annotated[Scope, typer.Option("--scope", help="All that the user does there, or one project.")]
ProjectOption = Annotated[
    Path | None, typer.Option("--project", file_okay=False, help="The project, for that scope (default: this one).")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]


@takes_settings()
def install(
    options: SettingsOptions,
    clients: ClientsArgument = None,
    name: NameOption = "praxis-mcp",
    scope: ScopeOption = Scope.USER,
    project: ProjectOption = None,
    url: Annotated[
        str | None, typer.Option("--url", help="The address of a server that runs: http://127.0.0.1:8000/mcp.")
    ] = None,
    token_variable: Annotated[
        str | None,
        typer.Option("--token-variable", help="The variable of the client's environment that holds the bearer token."),
    ] = None,
    write_token: Annotated[
        bool,
        typer.Option(
            "--write-token", help="Unsafe: write that variable's value, in clear, for a client without variables."
        ),
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add this server to the settings of MCP clients, which then start it, or reach it at --url.

    Nothing else of their files changes: comments, order and other servers stay, and so does what you have added to the
    entry. The file as it was is kept, and named. A file that cannot be understood is refused, with the line, and then
    nothing is changed for any client: exit code 2. Doing it twice changes nothing.

    Example: praxis-mcp install claude-code cursor --dry-run
    """
    if not clients:
        _list(name, scope, project, as_json, "Add it to one of them: praxis-mcp install CLIENT")
        return
    if url is None:
        server = _local(options, token_variable, write_token)
    elif options.tools or options.config is not None or options.root is not None:
        raise ArgumentError(
            "--url names a server that runs, and --tools, --root and --config are for one that the client starts.",
            remedy="Leave --url out, or the others.",
        )
    else:
        server = _remote(url, token_variable, write_token)
    _change(clients, name, scope, project, server, dry_run=dry_run, as_json=as_json)


def uninstall(
    clients: ClientsArgument = None,
    name: NameOption = "praxis-mcp",
    scope: ScopeOption = Scope.USER,
    project: ProjectOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove this server from the settings of MCP clients. Where it is not among them, nothing is changed.

    Exit code 2 where a file cannot be understood; then nothing is changed for any client.

    Example: praxis-mcp uninstall claude-code
    """
    with friendly_errors():
        if not clients:
            _list(name, scope, project, as_json, "Remove it from one of them: praxis-mcp uninstall CLIENT")
            return
        _change(clients, name, scope, project, None, dry_run=dry_run, as_json=as_json)


def _change(
    names: Sequence[str],
    name: str,
    scope: Scope,
    project: Path | None,
    server: Server | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from praxis_mcp.clients.changes import plan_change
    from praxis_mcp.clients.model import Machine

    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ArgumentError(
            f"{name!r} is not a name that every client takes.", remedy="Write 1 to 64 of A-Z a-z 0-9 _ and -."
        )
    machine, place = Machine.this(), _project(project, scope)
    # All of them first: what is refused for one is done for none.
    changes = [plan_change(_client(each), machine, scope, place, name, server) for each in dict.fromkeys(names)]
    found: list[dict[str, Any]] = []
    try:
        for change in changes:
            kept = change.write() if not dry_run and change.kind != "unchanged" else None
            if not as_json:
                _print(change, name, kept, is_there=server is not None, dry_run=dry_run)
                continue
            found.append(
                {
                    "client": change.client.name,
                    "file": str(change.file),
                    "change": change.kind,
                    "kept": str(kept) if kept else None,
                    "diff": change.diff(),
                }
            )
    finally:
        # Also of the files that were changed before one could not be.
        if as_json:
            echo_json(found)
    if not as_json and scope is Scope.PROJECT and server is not None and server.command:
        say("These files name paths of this machine: others who have the project write their own.", err=True)


def _print(change: Change, name: str, kept: Path | None, *, is_there: bool, dry_run: bool) -> None:
    words = {"added": "added to", "changed": "changed in", "removed": "removed from"}
    if change.kind == "unchanged":
        what = "is as it should be in" if is_there else "is not in"
    else:
        what = f"{'would be' if dry_run else 'is'} {words[change.kind]}"
    say(f"{change.client.title}: {name} {what} {change.file}", fg=None if dry_run else "green")
    if dry_run:
        for line in change.diff().splitlines():
            say(f"  {line}")
    elif change.kind != "unchanged":
        if kept is not None:
            say(f"  as it was: {kept}")
        say(f"  {change.client.restart if change.kind != 'removed' else 'Restart it, if it runs'}.")


def _client(name: str) -> Client:
    from praxis_mcp.clients.known import CLIENTS
    from praxis_mcp.contracts.problems import did_you_mean, quoted

    if name not in CLIENTS:
        raise ArgumentError(
            f"There is no client {quoted(name)}{did_you_mean(name, CLIENTS)}.", remedy=f"Known: {', '.join(CLIENTS)}."
        )
    return CLIENTS[name]


def _project(given: Path | None, scope: Scope) -> Path:
    from praxis_mcp.settings.files import project_at

    if given is not None and scope is not Scope.PROJECT:
        raise ArgumentError("--project is for the files of a project.", remedy="Add --scope project.")
    return Path(os.path.abspath(given)) if given is not None else project_at(Path.cwd())  # noqa: PTH100 - without ..


def _remote(url: str, token_variable: str | None, write_token: bool) -> Server:
    from urllib.parse import urlsplit

    from praxis_mcp.clients.model import Server

    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_address = urlsplit(""), False
    if not is_address or parts.username is not None or not re.fullmatch(r"[!-~]+", url):
        raise ArgumentError(
            "--url is not a valid address of an MCP server: http:// or https://, without a user name.",
            remedy="Write it as `praxis-mcp serve --http` names it: http://127.0.0.1:8000/mcp",
        )
    if token_variable is None:
        if write_token:
            raise ArgumentError("--write-token needs the token.", remedy="Name its variable: --token-variable NAME.")
        return Server(url=url)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", token_variable):
        raise ArgumentError(
            "--token-variable is not the name of a variable.", remedy="Put the token into one, and write its name."
        )
    if not write_token:
        return Server(url=url, token_variable=token_variable)
    token = os.environ.get(token_variable, "")
    if not re.fullmatch(r"[!-~]+", token):
        raise ArgumentError(
            f"The variable {token_variable} holds no token.", remedy="Set it, then run the command again."
        )
    return Server(url=url, token_variable=token_variable, token=token)


def _local(options: SettingsOptions, token_variable: str | None, write_token: bool) -> Server:
    from praxis_mcp.clients.model import Server
    from praxis_mcp.support.installation import own_command

    if token_variable is not None or write_token:
        raise ArgumentError("A token is for a server at a URL.", remedy="Name it: --url http://127.0.0.1:8000/mcp")
    settings = options.read()
    if not any(directory.is_dir() for directory in settings.tool_directories):
        say_where_contracts_go(settings)
    command = (*own_command(), *_serve(options, settings))
    # Bytes of a name that are not UTF-8 are surrogates in Python.
    unwritable = next((word for word in command if re.search("[\ud800-\udfff]", word)), None)
    if unwritable is not None:
        raise ArgumentError(
            f"The name of {unwritable} is not UTF-8, and cannot be written into a client's file.", remedy="Rename it."
        )
    return Server(command=command)


def _serve(options: SettingsOptions, settings: Settings) -> list[str]:
    """The words that have the same tools served from whatever directory a client starts them in."""
    from praxis_mcp.settings.files import CONFIG_VARIABLE, TOOLS

    origin, root = settings.origin, str(settings.root)
    given_root = ["--root", root] if options.root is not None else []
    tools = [str(directory) for directory in settings.tool_directories]
    if origin.file is not None and (options.config is not None or os.environ.get(CONFIG_VARIABLE)):
        return ["serve", "--config", str(origin.file), *given_root, *(tools if options.tools else [])]
    # A file that was found counts there by its approval, as it does here. It is not named: then it would count unseen.
    of_root = settings.root == origin.file.parent if origin.file else tools == [str(settings.root / TOOLS)]
    if of_root and not options.tools:
        return ["serve", "--root", root]
    return ["serve", *tools, *given_root]


def _list(name: str, scope: Scope, project: Path | None, as_json: bool, next_step: str) -> None:
    from praxis_mcp.clients.changes import entry_in, file_of
    from praxis_mcp.clients.known import CLIENTS
    from praxis_mcp.clients.model import Machine
    from praxis_mcp.errors import SettingsError

    machine, place = Machine.this(), _project(project, scope)
    found: list[dict[str, Any]] = []
    for client in CLIENTS.values():
        try:
            file = file_of(client, machine, scope, place)
        except SettingsError:
            continue
        has = entry_in(client, file, name)
        there = os.path.exists(file)  # noqa: PTH110 - False, too, where its directory cannot be read
        found.append({"client": client.name, "file": str(file), "exists": there, "installed": has})
    if as_json:
        echo_json(found)
        return
    states = {True: "installed", False: "", None: "cannot be read"}
    rows = table("client", "there", "file")
    for item in found:
        rows.add_row(
            item["client"],
            states[item["installed"]],
            escape(item["file"]) if item["exists"] or item["installed"] is None else "-",
        )
    console().print(rows)
    say(next_step, err=True)
