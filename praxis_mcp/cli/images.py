"""``praxis-mcp image …``: the images that the sandbox engine runs without a daemon."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from praxis_mcp.cli.common import JsonOption, SettingsOptions, takes_settings
from praxis_mcp.cli.terminal import console, echo_json, escape, say, table

if TYPE_CHECKING:
    from praxis_mcp.engines.base import StatusListener
    from praxis_mcp.engines.host.sandbox import SandboxImages
    from praxis_mcp.images.host_files import HostFile
    from praxis_mcp.images.model import NamedImage

T = TypeVar("T")

app = typer.Typer(name="image", help="The images that the sandbox engine runs without a daemon.", no_args_is_help=True)

_NAME = "Such as localhost/python: no registry can have that name."
_PROGRAMS = "By name or path: a program, a script, a Python (with its standard library)."


@app.command("import")
@takes_settings(tools=False, root=False)
def import_image(
    options: SettingsOptions,
    file: Annotated[Path, typer.Argument(help="What docker save or podman save wrote, or an OCI layout or archive.")],
    name: Annotated[str | None, typer.Option("--name", "-n", help="The image's name, if the file has none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Unpack the images of an archive into the store.

    Example: praxis-mcp image import tools.tar
    """
    images = _images(options)
    found = _work_with_status(lambda tell: images.import_file(file, name, tell))
    if as_json:
        echo_json([_facts(item) for item in found])
    else:
        for item in found:
            _print_image(item)


@app.command("pull")
@takes_settings(tools=False, root=False)
def pull_image(
    options: SettingsOptions,
    reference: Annotated[str, typer.Argument(help="Such as python:3.11-slim.")],
    as_json: JsonOption = False,
) -> None:
    """Fetch an image from its registry, as it is there now, into the store.

    Example: praxis-mcp image pull python:3.13-slim
    """
    images = _images(options)
    found = _work_with_status(lambda tell: images.pull(reference, tell))
    if as_json:
        echo_json(_facts(found))
    else:
        _print_image(found)


@app.command("from-host")
@takes_settings(tools=False, root=False)
def make_image(
    options: SettingsOptions,
    name: Annotated[str, typer.Argument(help=_NAME)],
    programs: Annotated[list[str], typer.Argument(metavar="PROGRAM", help=_PROGRAMS)],
    extra: Annotated[
        list[Path] | None,
        typer.Option("--with", help="A file or directory that they read; may be given more than once."),
    ] = None,
    list_files: Annotated[bool, typer.Option("--files", help="List every file that was taken, with its size.")] = False,
    max_size: Annotated[int | None, typer.Option(min=1, help="Bytes of all files (default: 1 GiB).")] = None,
    max_files: Annotated[int | None, typer.Option(min=1, help="Files and directories (default: 50,000).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an image of programs of this machine, with the libraries and interpreters that they need.

    Contracts then name it (image: NAME, engine: sandbox), and no registry is asked. The same files give the same image.
    Tools that run in it can read all of it.

    Example: praxis-mcp image from-host localhost/tools sh tr
    """
    images = _images(options)

    from praxis_mcp.images.from_host import BOUNDS
    from praxis_mcp.images.layers import Bounds

    bounds = Bounds(size=max_size or BOUNDS.size, entries=max_files or BOUNDS.entries)
    made = _work_with_status(lambda tell: images.from_host(name, programs, extra or (), bounds, tell))
    for line in made.about:
        say(f"took {line}", err=True)
    for line in made.notes:
        say(f"note: {line}", err=True)
    say(f"{len(made.files)} files, directories and links; {made.image.size / 1e6:.1f} MB", err=True)
    named = images.store.find(made.name)
    if as_json:
        facts = _facts(named) if named is not None else None
        files = [file.path for file in made.files] if list_files else len(made.files)
        echo_json({"image": facts, "files": files, "about": made.about, "notes": made.notes})
        return
    if named is not None:
        _print_image(named)
        say(f"A contract runs in it with image: {name} and engine: sandbox.", err=True)
    for file in made.files if list_files else ():
        say(_file_line(file))


@app.command("ls")
@takes_settings(tools=False, root=False)
def list_images(options: SettingsOptions, as_json: JsonOption = False) -> None:
    """List the images in the store.

    Example: praxis-mcp image ls --json
    """
    store = _images(options).store
    found = store.names()
    if as_json:
        echo_json([_facts(item) for item in found])
        return
    rows = table("name")
    for title in ("id", "size", "unpacked"):
        rows.add_column(title, no_wrap=True, justify="right" if title == "size" else "left")
    for item in found:
        rows.add_row(
            escape(item.reference),
            item.image.id[7:19],
            f"{item.image.size / 1e6:.1f} MB",
            f"{_time(item).astimezone():%Y-%m-%d %H:%M}",
        )
    console().print(rows)


@app.command("rm")
@takes_settings(tools=False, root=False)
def remove_images(
    options: SettingsOptions,
    references: Annotated[list[str], typer.Argument(help="Names, or ids (sha256:…).")],
    as_json: JsonOption = False,
) -> None:
    """Remove images from the store, by name or id. Exit code 1 where one is not there.

    Example: praxis-mcp image rm localhost/tools
    """
    store = _images(options).store
    missing = [reference for reference in references if not store.remove(reference)]
    if as_json:
        echo_json({"removed": [item for item in references if item not in missing], "missing": missing})
    for reference in missing:
        say(f"{reference} is not in the store.", err=True)
    if missing:
        raise typer.Exit(1)


@app.command("gc")
@takes_settings(tools=False, root=False)
def collect_garbage(options: SettingsOptions, as_json: JsonOption = False) -> None:
    """Remove unpacked images without a name, and what interrupted pulls left.

    Example: praxis-mcp image gc
    """
    removed = [str(item) for item in _images(options).store.collect_garbage()]
    if as_json:
        echo_json({"removed": removed})
    else:
        for item in removed:
            say(f"removed {item}")


def _images(options: SettingsOptions) -> SandboxImages:
    from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine

    return SandboxExecutionEngine(options.read()).images


def _work_with_status(work: Callable[[StatusListener], Awaitable[T]]) -> T:
    """Do something, showing on standard error what is being done."""
    import anyio

    shown = console(stderr=True)
    with shown.status("looking") as status:
        return anyio.run(work, lambda text: status.update(escape(text)))


def _facts(item: NamedImage) -> dict[str, Any]:
    return {
        "name": item.reference,
        "id": item.image.id,
        "manifest": item.manifest,
        "size": item.image.size,
        "created": _time(item).isoformat(),
        "root": str(item.image.root),
    }


def _print_image(item: NamedImage) -> None:
    """An image's name, and the name by digest."""
    say(f"{item.reference} {item.pinned}")


def _time(item: NamedImage) -> datetime:
    return datetime.fromtimestamp(item.image.created, UTC)


def _file_line(file: HostFile) -> str:
    if stat.S_ISLNK(file.mode):
        return f"{'link':>10}  {file.path} -> {file.target}"
    return f"{'directory' if stat.S_ISDIR(file.mode) else file.size:>10}  {file.path}"
