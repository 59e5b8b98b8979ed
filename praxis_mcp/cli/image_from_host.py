"""``praxis-mcp image from-host``: an image of this machine's own programs, for the sandbox engine."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import ConfigOption, LogLevelOption, friendly_errors
from praxis_mcp.cli.images import open_images, print_image, work_with_status
from praxis_mcp.cli.terminal import say

if TYPE_CHECKING:
    from praxis_mcp.engines.base import StatusListener
    from praxis_mcp.images.from_host import HostImage
    from praxis_mcp.images.host_files import HostFile

_NAME = "Such as localhost/python: no registry can have that name."
_PROGRAMS = "By name or path: a program, a script, a Python (with its standard library)."


def make_image(
    name: Annotated[str, typer.Argument(help=_NAME)],
    programs: Annotated[list[str], typer.Argument(metavar="PROGRAM...", help=_PROGRAMS)],
    extra: Annotated[
        list[Path] | None,
        typer.Option("--with", help="A file or directory that they read; may be given several times."),
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List every file that was taken, with its size.")] = False,
    max_size: Annotated[int | None, typer.Option(min=1, help="Bytes of all files (default: 1 GiB).")] = None,
    max_files: Annotated[int | None, typer.Option(min=1, help="Files and directories (default: 50,000).")] = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Make an image of programs of this machine, with the libraries and interpreters that they need.

    Contracts then name it (image: NAME, engine: sandbox), and no registry is asked. The same files give the same image.
    Tools that run in it can read all of it.
    """
    with friendly_errors():
        images = open_images(config, log_level)

        async def work(tell: StatusListener) -> HostImage:
            import anyio.from_thread
            import anyio.to_thread

            from praxis_mcp.images.from_host import BOUNDS, store_from_host
            from praxis_mcp.images.layers import Bounds

            bounds = Bounds(size=max_size or BOUNDS.size, entries=max_files or BOUNDS.entries)
            return await anyio.to_thread.run_sync(
                lambda: store_from_host(
                    images.store,
                    name,
                    programs,
                    extra or (),
                    bounds,
                    on_progress=lambda text: anyio.from_thread.run_sync(tell, text),
                )
            )

        made = work_with_status(work)
        for line in made.about:
            say(f"took {line}", err=True)
        for line in made.notes:
            say(f"note: {line}", err=True)
        say(f"{len(made.files)} files, directories and links; {made.image.size / 1e6:.1f} MB", err=True)
        named = images.store.find(made.name)
        if named is not None:
            print_image(named)
        for file in made.files if show_list else ():
            say(_line(file))


def _line(file: HostFile) -> str:
    if stat.S_ISLNK(file.mode):
        return f"{'link':>10}  {file.path} -> {file.target}"
    return f"{'directory' if stat.S_ISDIR(file.mode) else file.size:>10}  {file.path}"
