"""Everything that a command prints goes through here, so that no text of others steers a terminal, forges a line, or
hides a part of itself while it is being approved (see `praxis_mcp.support.text`)."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from praxis_mcp.cli.encodings import can_write
from praxis_mcp.support.text import printable, unseen, visible

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251 - this is the place

_WIDE = 100_000
"""Columns where nothing has to fit: in a pipe or a file."""


def say(text: str = "", *, err: bool = False, nl: bool = True, **style: Any) -> None:
    """Print text; what follows its first line is indented, so that it cannot pass for a line of ours.

    Args:
        err: on standard error.
        nl: end the line.
        style: as `typer.style` takes it.
    """
    first, *rest = visible(text).split("\n")
    shown = "\n".join([first, *(line if line[:1] in ("", " ") else f"  {line}" for line in rest)])
    # Named, because Click writes UTF-8 past a stream that says it is ASCII.
    stream = sys.stderr if err else sys.stdout
    typer.secho(shown, file=stream, nl=nl, **style)  # noqa: TID251 - this is the place


def escape(text: str) -> str:
    """Text of others for the markup that rich prints: on one line."""
    from rich.markup import escape as without_markup  # noqa: TID251 - this is the place

    return without_markup(printable(text))


def console(*, stderr: bool = False) -> Console:
    """A rich console that passes on no control character but line feeds and tabs, no matter who wrote it. In a pipe or
    a file it cuts and wraps nothing: a row of a table is a line."""
    from rich.console import Console  # noqa: TID251 - this is the place
    from rich.text import Text

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()

    class SafeConsole(Console):
        def render_str(self, text: str, *args: Any, **options: Any) -> Text:
            return super().render_str(visible(text), *args, **options)

        def print(self, *objects: Any, **options: Any) -> None:
            if is_terminal:
                super().print(*objects, **options)
                return
            with self.capture() as captured:
                super().print(*objects, **options)
            # Tables fill their columns up to the longest row.
            self.file.write("\n".join(line.rstrip() for line in captured.get().split("\n")))

    return SafeConsole(stderr=stderr, width=None if is_terminal else _WIDE)


def echo_json(value: Any) -> None:
    """Print JSON on standard output. What a terminal would obey or not show, or the encoding lacks, is escaped as JSON
    has it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    # In ASCII where there is any such: the same value to anyone who reads it as JSON.
    if unseen(text) or not can_write(text, sys.stdout):
        text = json.dumps(value, indent=2, default=str).replace("\x7f", "\\u007f")
    typer.echo(text)  # noqa: TID251 - this is the place


def shown_on_terminal(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What a tool wrote, piece by piece, for a terminal: with what is not text, or would steer the terminal, in
    numbers."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    held = ""
    for piece in pieces:
        # A carriage return at the end may be half of a line's end.
        text = held + decoder.decode(piece)
        held = "\r" if text.endswith("\r") else ""
        yield visible(text.removesuffix("\r") if held else text).encode()
    yield visible(held + decoder.decode(b"", final=True)).encode()
