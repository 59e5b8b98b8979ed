"""``praxis-mcp image …``: the images that the sandbox engine runs without a daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from praxis_mcp.cli.common import (
    ConfigOption,
    JsonOption,
    LogLevelOption,
    friendly_errors,
    read_settings,
)
from praxis_mcp.cli.terminal import console, echo_json, escape, say

if TYPE_CHECKING:
    from praxis_mcp.engines.base import StatusListener
    from praxis_mcp.engines.host.sandbox import SandboxImages
    from praxis_mcp.images.model import NamedImage

T = TypeVar("T")

app = typer.Typer(name="image", help="The images that the sandbox engine runs without a daemon.", no_args_is_help=True)


@app.command("import")
def import_image(
    file: Annotated[Path, typer.Argument(help="What docker save or podman save wrote, or an OCI layout or archive.")],
    name: Annotated[str | None, typer.Option("--name", "-n", help="The image's name, if the file has none.")] = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Unpack the images of an archive into the store."""
    with friendly_errors():
        images = open_images(config, log_level)
        for item in work_with_status(lambda tell: images.import_file(file, name, tell)):
            print_image(item)


@app.command("pull")
def pull_image(
    reference: Annotated[str, typer.Argument(help="Such as python:3.11-slim.")],
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Fetch an image from its registry, as it is there now, into the store."""
    with friendly_errors():
        images = open_images(config, log_level)
        print_image(work_with_status(lambda tell: images.pull(reference, tell)))


@app.command("ls")
def listopen_images(config: ConfigOption = None, log_level: LogLevelOption = None, as_json: JsonOption = False) -> None:
    """List the images in the store."""
    with friendly_errors():
        store = open_images(config, log_level).store
        found = store.names()
        if as_json:
            echo_json(
                [
                    {
                        "name": item.reference,
                        "id": item.image.id,
                        "manifest": item.manifest,
                        "size": item.image.size,
                        "created": _time(item).isoformat(),
                        "root": str(item.image.root),
                    }
                    for item in found
                ]
            )
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("name", "id", "size", "unpacked"):
            table.add_column(title, no_wrap=title != "name", justify="right" if title == "size" else "left")
        for item in found:
            table.add_row(
                escape(item.reference),
                item.image.id[7:19],
                f"{item.image.size / 1e6:.1f} MB",
                f"{_time(item).astimezone():%Y-%m-%d %H:%M}",
            )
        console().print(table)


@app.command("rm")
def remove_images(
    references: Annotated[list[str], typer.Argument(help="Names, or ids (sha256:…).")],
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Remove images from the store, by name or id. Exit code 1 where one is not there."""
    with friendly_errors():
        store = open_images(config, log_level).store
        missing = [reference for reference in references if not store.remove(reference)]
        for reference in missing:
            say(f"{reference} is not in the store.", err=True)
        if missing:
            raise typer.Exit(1)


@app.command("gc")
def collect_garbage(config: ConfigOption = None, log_level: LogLevelOption = None) -> None:
    """Remove unpacked images without a name, and what interrupted pulls left."""
    with friendly_errors():
        for item in open_images(config, log_level).store.collect_garbage():
            say(f"removed {item}")


def open_images(config: Path | None, log_level: str | None) -> SandboxImages:
    """The images of the settings' store."""
    from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine

    return SandboxExecutionEngine(read_settings(config, None, log_level)).images


def work_with_status(work: Callable[[StatusListener], Awaitable[T]]) -> T:
    """Do something, showing on standard error what is being done."""
    import anyio

    shown = console(stderr=True)
    with shown.status("looking") as status:
        return anyio.run(work, lambda text: status.update(escape(text)))


def print_image(item: NamedImage) -> None:
    """An image's name, and the name by digest."""
    say(f"{item.reference} {item.pinned}")


def _time(item: NamedImage) -> datetime:
    return datetime.fromtimestamp(item.image.created, UTC)
