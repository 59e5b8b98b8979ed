"""``praxis-mcp new``: a tool to begin with, its contract, code and examples."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from praxis_mcp.cli.common import JsonOption, SettingsOptions, takes_settings
from praxis_mcp.cli.terminal import echo_json, say
from praxis_mcp.errors import ArgumentError

if TYPE_CHECKING:
    from praxis_mcp.settings.model import Settings


@takes_settings()
def new(
    options: SettingsOptions,
    name: Annotated[str, typer.Argument(help="The tool's name: 1 to 64 of A-Z a-z 0-9 _ . and -.")],
    language: Annotated[
        Literal["shell", "python", "node", "go"], typer.Option("--lang", "-l", help="What its code is written in.")
    ] = "python",
    image: Annotated[
        str | None, typer.Option("--image", help="The image that it runs in (default: the language's own).")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run it with this machine's own programs, without an image.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a tool to begin with: its contract, explained by comments, its code, and examples that pass as tests.

    It goes into a directory of its own among the tools of this project. Nothing is overwritten: exit code 2 where the
    name is taken.

    Example: praxis-mcp new count_words --lang shell
    """
    from praxis_mcp.cli.starters import STARTERS, files_of

    if image is not None and local:
        raise ArgumentError("--image and --local exclude each other.", remedy="Leave one of them out.")
    if image is not None:
        _check_image(image)
    settings = options.read()
    directory = place_for(settings, name)
    files = files_of(
        name,
        language,
        image=None if local else image or STARTERS[language].image,
        host_network=local and not can_take_network(settings),
    )
    write_files(directory, files)
    more = [word for item in options.tools or () for word in ("--tools", str(item))]
    build = STARTERS[language].build if local else ()
    say_what_to_do_next(
        name,
        [directory / file for file in files],
        [
            *([f"(cd {shlex.quote(shown(directory))} && {shlex.join(build)})"] if build else []),
            shlex.join(["praxis-mcp", "test", name, *more]),
            shlex.join(["praxis-mcp", "call", name, "text=one two", *more]),
        ],
        as_json=as_json,
    )


def _check_image(image: str) -> None:
    from praxis_mcp.errors import ImageError
    from praxis_mcp.images.model import Reference

    try:
        Reference.parse(image)
    except ImageError as exc:
        raise ArgumentError(exc.message, remedy=exc.remedy) from exc


def place_for(settings: Settings, name: str) -> Path:
    """The directory that a new tool gets.

    Raises:
        ArgumentError: no tool can be named so, or one is.
    """
    import anyio

    from praxis_mcp.contracts.catalog.catalog import Catalog
    from praxis_mcp.contracts.model import NAME_PATTERN
    from praxis_mcp.contracts.problems import quoted
    from praxis_mcp.contracts.reading.checks import MAX_TOOL_NAME

    if not NAME_PATTERN.fullmatch(name) or len(name) > MAX_TOOL_NAME or name[0] in ".-" or name.endswith("."):
        raise ArgumentError(
            f"{quoted(name)} is not a valid name of a tool.",
            remedy=f"A name has 1 to {MAX_TOOL_NAME} characters out of A-Z a-z 0-9 _ . - and begins with a letter, a "
            "digit or _, and does not end with a dot.",
        )
    directories = settings.tool_directories
    if not directories:
        raise ArgumentError("The settings name no directory of tools.", remedy="Name one: --tools DIRECTORY.")
    catalog = Catalog([item for item in directories if item.is_dir()])
    anyio.run(catalog.load)
    taken = next((entry for entry in catalog.entries() if entry.name == name), None)
    if taken is not None:
        raise ArgumentError(
            f"There is a tool {name} already: {taken.source}.", remedy="Choose another name, or remove that one."
        )
    return directories[0] / name


def can_take_network(settings: Settings) -> bool:
    """Whether a program of this machine can be run without network here, as `engine: local` does it."""
    import anyio

    from praxis_mcp.engines.registry import EngineRegistry
    from praxis_mcp.errors import EngineUnavailable
    from praxis_mcp.plans.model import Capability

    async def ask() -> bool:
        async with EngineRegistry(settings) as engines:
            try:
                found = await engines.get("local").get_capabilities()
            except EngineUnavailable:  # the settings require a sandbox: calls are refused, and say so
                return True
            return Capability.NETWORK_NONE in found.enforces

    return anyio.run(ask)


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """Write files that are not there yet: all of them, or none.

    Args:
        directory: made where it is missing.
        files: what each holds, by its path from there.

    Raises:
        ArgumentError: one of them exists, or cannot be written.
    """
    there = [directory / name for name in files if os.path.lexists(directory / name)]
    if there:
        raise ArgumentError(
            f"{there[0]} exists already; nothing was written.", remedy="Remove it, or choose another place."
        )
    written: list[Path] = []
    made: list[Path] = []
    try:
        for name, content in files.items():
            file = directory / name
            made += [place for place in file.parents if not place.exists() and place not in made]
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8", newline="\n") as out:
                written.append(file)
                out.write(content)
    except OSError as exc:
        for file in written:
            file.unlink(missing_ok=True)
        for place in sorted(made, key=lambda place: len(place.parts), reverse=True):
            with suppress(OSError):
                place.rmdir()
        where = exc.filename or directory
        raise ArgumentError(f"{where} cannot be written: {exc.strerror}.", remedy="Choose another place.") from exc


def say_what_to_do_next(
    name: str, files: Sequence[Path], steps: Sequence[str], kept: Sequence[Path] = (), *, as_json: bool
) -> None:
    """Say what was written, and what to do next.

    Args:
        name: of what was made.
        files: that were written.
        steps: commands.
        kept: files that were there already.
        as_json: for scripts.
    """
    if as_json:
        echo_json({"name": name, "files": [str(f) for f in files], "kept": [str(f) for f in kept], "next": steps})
        return
    for file in files:
        say(f"wrote {shown(file)}")
    for file in kept:
        say(f"kept {shown(file)}, which is there already", fg="yellow")
    say("Next:")
    for step in steps:
        say(f"  {step}")


def shown(file: Path) -> str:
    """A path as short as it can be read from here."""
    try:
        return str(file.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(file)
