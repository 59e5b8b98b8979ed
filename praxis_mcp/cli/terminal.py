"""Everything that a command writes, printed or logged, goes through here: no text of others steers a terminal, forges a
line, or hides a part of itself while it is being approved (see `praxis_mcp.support.text`), and what the encoding of the
terminal or the pipe lacks is replaced.

Logs go to standard error only, one line an entry, and never with a value that a caller, a secret or an environment
gave.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TextIO

import typer

from praxis_mcp.support.text import printable, unseen, visible

if TYPE_CHECKING:
    from loguru import Message, Record
    from rich.console import Console  # noqa: TID251 - this is the place
    from rich.table import Table

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


def status_printer(*, err: bool = True) -> Callable[[str], None]:
    """What prints how an engine is getting on: each thing that it does once, though it says all the time how far it is.

    Args:
        err: on standard error.
    """
    shown: set[str] = set()

    def on_status(text: str) -> None:
        what = re.sub(r"\b\d+%", "", text)
        if what not in shown:
            shown.add(what)
            say(f"  {text}", dim=True, err=err)

    return on_status


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


def table(*columns: str, title: str | None = None) -> Table:
    """A table without lines."""
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")


def phases_in_words(phases: Mapping[str, float]) -> str:
    """Where the time of a call went: ``start 7 ms, run 12 ms``; without what took none.

    Args:
        phases: seconds by phase.
    """
    return ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in phases.items() if seconds >= 0.0005)


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


_HANDLER = "praxis_mcp.look_alike"
_LOOK_ALIKES = {
    "✓": "+", "✗": "x", "→": "->", "←": "<-", "…": "~", "·": "-", "•": "*", "×": "x", "≥": ">=", "≤": "<=",  # noqa: RUF001
    "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ",  # noqa: RUF001
}  # fmt: skip
_DRAWN = (("\u2500", "\u2501", "-"), ("\u2502", "\u2503", "|"), ("\u2504", "\u259f", "+"), ("\u2800", "\u28ff", "*"))
"""Ranges of lines, corners and spinners, and what stands for each of their characters."""


def have_standard_streams() -> None:
    """Have the null device where standard input, output or error came closed: else the next
    file or socket that is opened takes that number, and gets what is written to it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - as long as we live


def write_in_any_encoding() -> None:
    """Have standard output and error write a look-alike for what their encoding lacks, rather than raise.

    A handler that the user chose (``PYTHONIOENCODING=…:replace``) stays.
    """
    codecs.register_error(_HANDLER, _look_alike)
    for stream, usual in ((sys.stdout, ("strict", "surrogateescape")), (sys.stderr, ("strict", "backslashreplace"))):
        reconfigure = getattr(stream, "reconfigure", None)  # None where there is no stream, or a test stands in for it
        if reconfigure is not None and stream.errors in usual:
            reconfigure(errors=_HANDLER)


def can_write(text: str, stream: TextIO) -> bool:
    """Whether the stream's encoding has every character."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _look_alike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(_ascii(character) for character in error.object[error.start : error.end])
    return text, error.end


def _ascii(character: str) -> str:
    known = _LOOK_ALIKES.get(character)
    if known is not None:
        return known
    for first, last, instead in _DRAWN:
        if first <= character <= last:
            return instead
    return character.encode("ascii", "backslashreplace").decode()


_FORMAT = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message}<dim>{extra[in_run]}</dim>"


def configure_logging(level: str, form: Literal["text", "json"] = "text") -> None:
    """Send logs of at least `level` to standard error.

    Args:
        level: the least severe that is shown.
        form: ``text`` for people, or ``json``: an object a line, with ``time`` (RFC 3339), ``level``, ``message``, and
            what else is known, such as ``run`` and ``tool``.
    """
    from praxis_mcp.support.logs import NAME, logger

    logger.enable(NAME)
    logger.remove()
    # Whatever text of others a message holds: it begins no line of its own, and steers no terminal.
    logger.configure(extra={"in_run": ""}, patcher=_make_safe)
    # diagnose would print the values of local variables into tracebacks: arguments and secrets among them.
    if form == "json":
        logger.add(_write_json, level=level, format="{message}", backtrace=False, diagnose=False)
    else:
        logger.add(sys.stderr, level=level, format=_FORMAT, backtrace=False, diagnose=False)


def warn_of_losses() -> None:
    """Show no logs but what keeps runs from being recorded and spans from being exported, as a warning to whom the
    command answers: he would look for the run, or its trace, in vain."""
    from praxis_mcp.support.logs import NAME, logger

    logger.enable(NAME)
    logger.remove()
    logger.configure(patcher=_make_safe)
    logger.add(
        lambda message: say(f"warning: {message.record['message']}", fg="yellow", err=True),
        level="WARNING",
        filter={"": False, f"{NAME}.execution.records": True, f"{NAME}.support.telemetry": True},
        format="",
    )


def hold_logs() -> list[tuple[str, str]]:
    """Show no logs until `configure_logging`; what is logged meanwhile, level and text, comes into the list. loguru's
    own form would be neither safe to show nor an object a line."""
    from praxis_mcp.support.logs import NAME, logger

    held: list[tuple[str, str]] = []
    logger.enable(NAME)
    logger.remove()
    logger.add(lambda message: held.append((message.record["level"].name, message.record["message"])), format="")
    return held


def _make_safe(record: Record) -> None:
    record["message"] = printable(record["message"])
    run = record["extra"].get("run", "")
    if run:
        record["extra"]["in_run"] = f" run={run[:8]}"


def _write_json(message: Message) -> None:
    record = message.record
    known = {name: value for name, value in record["extra"].items() if name != "in_run"}
    entry = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": record["message"],
        **{name: printable(value) if isinstance(value, str) else value for name, value in known.items()},
    }
    # In one write, so that two processes with one log do not end up in each other's lines.
    sys.stderr.write(json.dumps(entry) + "\n")
