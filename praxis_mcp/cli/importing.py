"""``praxis-mcp import``: settings and contracts from what others wrote."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from praxis_mcp.cli.common import JsonOption, SettingsOptions, friendly_errors, takes_settings
from praxis_mcp.cli.install import DryRunOption
from praxis_mcp.cli.terminal import echo_json, say
from praxis_mcp.errors import ArgumentError

if TYPE_CHECKING:
    from praxis_mcp.importing.mcp_servers import ImportedServers

app = typer.Typer(
    name="import",
    help="Write settings and contracts from what others wrote, and name what could not be carried over.",
    no_args_is_help=True,
)

_MOST_IMPORTED = 16 * 1024 * 1024
_MOST_OF_SETTINGS = 1024 * 1024


def _complete_source(incomplete: str) -> list[str]:
    from praxis_mcp.clients.known import CLIENTS

    return [name for name in CLIENTS if name.startswith(incomplete)]


@app.command("mcp-json")
def mcp_json(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A client's file, or a client's name for its own (claude-desktop, cursor, …); - is standard input.",
            autocompletion=_complete_source,
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write it to this new file.")] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="Add it to this settings file, such as praxis.yaml.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make upstreams of the servers that another MCP client has: Claude, Cursor, VS Code, Codex, Gemini CLI, Zed and
    others, in JSON or TOML.

    What may be a secret in variables, headers and commands becomes the name of one, which is to be set in the server's
    environment; its value is not written anywhere. The client's file stays as it is.

    Exit code 1 where a server could not be carried over at all, 2 where the file cannot be read.

    Example: praxis-mcp import mcp-json claude-desktop --into praxis.yaml
    """
    with friendly_errors():
        from praxis_mcp.importing.mcp_servers import import_servers

        if out is not None and into is not None:
            raise ArgumentError("--out and --into exclude each other.", remedy="Leave one of them out.")
        data = _read_data(source)
        found = import_servers(data)
        file = None
        if into is not None:
            file = _add_to(into, found)
        elif out is not None:
            from praxis_mcp.cli.new import write_files

            file = out.absolute()
            write_files(file.parent, {file.name: _as_settings(found)})
        _print_servers(found, file, is_added=into is not None, as_json=as_json)
        if not found.is_whole:
            raise typer.Exit(1)


def _read_data(source: str) -> Mapping[str, Any]:
    from praxis_mcp.clients import jsonc, toml_edits
    from praxis_mcp.clients.known import CLIENTS
    from praxis_mcp.clients.model import Machine

    file, form = Path(source), "toml" if source.endswith(".toml") else "json"
    if source in CLIENTS and not file.exists():
        file, form = CLIENTS[source].file(Machine.this()), CLIENTS[source].form
    text = read_text(file, remedy=f"Name a file that is there, or a client that has one: {', '.join(CLIENTS)}.")
    try:
        return toml_edits.parse(text) if form == "toml" else jsonc.parse_object(text)
    except jsonc.MalformedError as exc:
        raise ArgumentError(f"{file}:{exc.line}:{exc.column}: {exc}.", remedy="Fix it; comments may stay.") from exc
    except RecursionError as exc:
        raise ArgumentError(f"{file} has too many brackets in one another.", remedy="Give another file.") from exc
    except ValueError as exc:  # tomllib's messages name line and column, and repeat no values
        raise ArgumentError(f"{file} is not valid TOML: {exc}.", remedy="Fix it.") from exc


def read_text(file: Path, most: int = _MOST_IMPORTED, remedy: str = "Name a file that is there.") -> str:
    """The text of a file, or of standard input for ``-``.

    Args:
        file: the file.
        most: bytes that it may have.
        remedy: what to do where it cannot be read.

    Raises:
        ArgumentError: it cannot be read, is too large or not UTF-8.
    """
    from praxis_mcp.support.files import read_regular

    try:
        content = sys.stdin.buffer.read(most + 1) if str(file) == "-" else read_regular(file, most)
    except OSError as exc:
        if str(file).startswith(("http:/", "https:/")):  # a path has no second slash there
            raise ArgumentError(
                "An address was given where a file is read; nothing is fetched.",
                remedy="Fetch it first, and give the file, or - for standard input: curl -fsSL ADDRESS | praxis-mcp …",
            ) from exc
        raise ArgumentError(f"{file} cannot be read: {exc.strerror}.", remedy=remedy) from exc
    if len(content) > most:
        raise ArgumentError(f"{file} has more than {most // 1024**2} MiB.", remedy="Give a part of it.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ArgumentError(f"{file} is not UTF-8 text.", remedy="Save it in UTF-8.") from exc


def _as_settings(found: ImportedServers) -> str:
    from praxis_mcp.importing.yaml_text import as_yaml

    return as_yaml({"upstreams": found.upstreams})


def _add_to(into: Path, found: ImportedServers) -> Path:
    from praxis_mcp.importing.yaml_text import with_members
    from praxis_mcp.settings.files import parse
    from praxis_mcp.support.files import replace_bytes

    file = Path(os.path.realpath(into))
    text = read_text(file, _MOST_OF_SETTINGS) if file.exists() else ""
    there = parse(text, into).get("upstreams") or {}
    for name in [name for name in found.upstreams if name in there]:
        del found.upstreams[name]
        found.notes.append(f"{name} is left out: {into} has an upstream of that name.")
    found.forget_unused()
    if found.upstreams:
        try:
            replace_bytes(file, with_members(text, "upstreams", found.upstreams, str(into)).encode())
        except OSError as exc:
            raise ArgumentError(f"{into} cannot be written: {exc.strerror}.", remedy="Name another file.") from exc
    return into


def _print_servers(found: ImportedServers, file: Path | None, *, is_added: bool, as_json: bool) -> None:
    from praxis_mcp.cli.new import shown

    if as_json:
        echo_json(
            {
                "upstreams": found.upstreams,
                "secrets": found.secrets,
                "notes": found.notes,
                "file": str(file) if file else None,
            }
        )
        return
    if file is None:
        if found.upstreams:
            for line in _as_settings(found).splitlines():
                say(line)
    elif found.upstreams:
        say(f"{'added to' if is_added else 'wrote'} {shown(file)}: {', '.join(found.upstreams)}")
    say_notes(found.notes)
    say_secrets(found.secrets)
    if file is not None and found.upstreams:
        say("Next:")
        say("  praxis-mcp trust")
        say("  praxis-mcp upstreams list")


def say_notes(notes: Sequence[str]) -> None:
    """Say on standard error what was not carried over."""
    for note in notes:
        say(f"note: {note}", fg="yellow", err=True)


def say_secrets(secrets: Mapping[str, str]) -> None:
    """Say on standard error which secrets have to be there."""
    if secrets:
        say(
            "Set these in the environment of praxis-mcp, or name a source for each under secrets: in the settings:",
            err=True,
        )
    for name, where in secrets.items():
        say(f"  {name}: {where}", err=True)


@app.command("docker-run", context_settings={"ignore_unknown_options": True})
@takes_settings()
def docker_run(
    options: SettingsOptions,
    words: Annotated[
        list[str], typer.Argument(metavar="'docker run …'", help="In quotation marks; - is standard input.")
    ],
    name: Annotated[str | None, typer.Option("--name", "-n", help="The tool's name (default: the image's).")] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a contract of a docker run command: its image, words, variables, mounts and limits.

    Placeholders ($FILE, <file>, {file}) at the end of the command or after an option become parameters. What no tool
    may have (--privileged, -p, -d, --device …) is refused; what has no place in a contract is named. Nothing is
    overwritten.

    Exit code 2 where no contract can be made of it.

    Example: praxis-mcp import docker-run 'docker run --rm -v "$PWD":/src:ro alpine/git -C /src log -n <count>'
    """
    from praxis_mcp.cli.new import place_for, say_what_to_do_next, write_files
    from praxis_mcp.contracts.reading.loading import load_text
    from praxis_mcp.importing.docker_run import import_command

    if len(words) > 1:
        raise ArgumentError(
            f'The command is to be one argument, and "{words[1]}" is another.',
            remedy="Put all of it in single quotation marks: praxis-mcp import docker-run 'docker run …'",
        )
    text = read_text(Path("-"), _MOST_OF_SETTINGS) if words[0] == "-" else words[0]
    tool = import_command(text, name)
    written = tool.written("a docker run command")
    loaded = load_text(written)
    if loaded.contract is None:
        found = next(item for item in loaded.diagnostics if item.is_error)
        raise ArgumentError(f"No contract can be made of it: {found.message}", remedy=found.remedy)
    place = None
    if not dry_run:
        settings = options.read()
        place = place_for(settings, tool.name)
        write_files(place, {"contract.yaml": written})
    if as_json:
        file = str(place / "contract.yaml") if place else None
        echo_json(
            {"name": tool.name, "contract": tool.contract, "secrets": tool.secrets, "notes": tool.notes, "file": file}
        )
        return
    if place is None:
        for line in written.splitlines():
            say(line)
    else:
        file = place / "contract.yaml"
        say_what_to_do_next(
            tool.name, [file], [f"praxis-mcp explain {tool.name}", f"praxis-mcp test {tool.name}"], as_json=False
        )
    say_notes(tool.notes)
    say_secrets(tool.secrets)


@app.command("openapi")
@takes_settings()
def openapi(
    options: SettingsOptions,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="OpenAPI 2.0 or 3, YAML or JSON; - is standard input.")],
    url: Annotated[
        str | None, typer.Option("--server", help="The URL that its paths begin at, in place of that in FILE.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only operations with this tag; repeatable.")] = None,
    operation: Annotated[
        list[str] | None, typer.Option("--operation", help="Only this operationId, or 'GET /path'; repeatable.")
    ] = None,
    dry_run: DryRunOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace contracts that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a contract of each operation of an API, for engine: http.

    Parameters keep their places, schemas are made whole, and authentication is by secrets, whose names are listed.
    Nothing is fetched, and nothing is overwritten without --force. Look at the contracts, fill in their examples, and
    remove the operations that no agent needs: each one is read by a model in every conversation.

    Exit code 1 where operations were left out, 2 where the file is refused.

    Example: praxis-mcp import openapi api.yaml --tag issues
    """
    from praxis_mcp.importing.foreign import read_foreign
    from praxis_mcp.importing.openapi import import_operations
    from praxis_mcp.importing.usable import as_file
    from praxis_mcp.support.files import replace_text

    document = read_foreign(read_text(file), str(file))
    found = import_operations(document, tags=tuple(tag or ()), operations=tuple(operation or ()), url=url)
    usable: dict[str, str] = {}
    notes = list(found.notes)
    secrets: dict[str, str] = {}
    for tool in found.tools:
        written, error = as_file(tool, "an OpenAPI description")
        if error is not None:
            notes.append(f"{tool.name} is left out: {error.message}")
            continue
        usable[tool.name] = written
        secrets |= tool.secrets
        notes += [f"{tool.name}: {note}" for note in tool.notes]
    settings = options.read()
    if not settings.tool_directories:
        raise ArgumentError("The settings name no directory of tools.", remedy="Name one: --tools DIRECTORY.")
    place = settings.tool_directories[0]
    there = [name for name in usable if os.path.lexists(place / name)]
    if there and not force and not dry_run:
        raise ArgumentError(
            f"{place / there[0]} exists already; nothing was written.", remedy="Remove it, or replace it: --force."
        )
    if not dry_run:
        from praxis_mcp.cli.new import write_files

        write_files(place, {f"{name}/contract.yaml": text for name, text in usable.items() if name not in there})
        for name in there:
            replace_text(place / name / "contract.yaml", usable[name])
    if as_json:
        contracts = [tool.contract for tool in found.tools if tool.name in usable]
        echo_json({"contracts": contracts, "secrets": secrets, "notes": notes, "directory": str(place)})
    elif dry_run:
        for text in usable.values():
            say("---")
            for line in text.splitlines():
                say(line)
    else:
        from praxis_mcp.cli.new import shown

        say(f"wrote {len(usable)} contracts to {shown(place)}")
        say("Next:")
        for step in ("praxis-mcp validate", "praxis-mcp list", "praxis-mcp test"):
            say(f"  {step}")
    if not as_json:
        say_notes(notes)
        say_secrets(secrets)
    if len(usable) < len(found.tools) or any(" is left out: " in note for note in found.notes):
        raise typer.Exit(1)
