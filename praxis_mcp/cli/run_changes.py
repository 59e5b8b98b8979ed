"""``praxis-mcp runs diff``: the files that a run changed, as a unified diff or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from praxis_mcp.cli.terminal import console
from praxis_mcp.support.text import printable

if TYPE_CHECKING:
    from praxis_mcp.execution.records.changes import StoredChange

_STYLES = {"+": "green", "-": "red", "@": "cyan", "#": "bold"}
_NOTHING = "/dev/null"


def changes_as_json(changes: Sequence[StoredChange]) -> list[dict[str, Any]]:
    """Changes for scripts, with the difference where it is kept."""
    return [
        {**item.as_json(), "diff": "\n".join(line for _, line in _difference(item))}
        if item.has_texts
        else item.as_json()
        for item in changes
    ]


def print_changes(changes: Sequence[StoredChange]) -> None:
    """Print changes. On a terminal, what would steer it is shown by number; elsewhere, texts are as they are kept, so
    that ``patch`` can read them."""
    lines = ((sign, line) for item in changes for sign, line in (("#", _title(item)), *_difference(item)))
    if sys.stdout.isatty():
        from rich.text import Text

        out = console()
        for sign, line in lines:
            out.print(Text(printable(line), _STYLES.get(sign, "")), soft_wrap=True)
        return
    for _, line in lines:
        sys.stdout.buffer.write(line.encode(errors="backslashreplace") + b"\n")
    sys.stdout.flush()


def _title(item: StoredChange) -> str:
    return f"{printable(item.path)}: {printable(item.in_words)}"


def _difference(item: StoredChange) -> Iterator[tuple[str, str]]:
    lines = item.lines()
    if not lines:
        return
    path = printable(item.path)
    yield "#", f"--- {path if item.before is not None else _NOTHING}"
    yield "#", f"+++ {path if item.after is not None else _NOTHING}"
    for sign, text in lines:
        yield sign, text if sign == "@" else f"{sign}{text}"
