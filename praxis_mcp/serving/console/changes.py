"""What a run changed in its writable mounts, as its page shows it: bounded, whatever a record holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from praxis_mcp.execution.records.changes import StoredChange, changes_of
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.serving.console.text import readable

MAX_DIFFS = 50
"""Files of a run of which a page shows what changed in them; others are named."""
MAX_DIFF_LINES = 400
"""Lines that are shown of one."""
MAX_DIFF_TEXT = 400 * 1024
"""Characters of differences on one page."""
MAX_NAMED = 500
"""Files that are named."""
_LINE = 1000
"""Characters of one line."""
_KINDS = {"+": "plus", "-": "minus", "@": "part", "\\": "note", " ": ""}


@dataclass(frozen=True, slots=True)
class ShownChange:
    """One file.

    Attributes:
        path: of the file.
        what: what became of it, in words.
        lines: the difference: what kind of line it is, and its text.
        is_cut: whether there is more of it.
    """

    path: str
    what: str
    lines: tuple[tuple[str, str], ...] = ()
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class ShownChanges:
    """All that a run changed.

    Attributes:
        files: those of which more than the path is kept.
        others: paths of others.
        left_out: how many are not named.
        is_damaged: whether what is kept of them cannot be read.
    """

    files: tuple[ShownChange, ...] = ()
    others: tuple[str, ...] = ()
    left_out: int = 0
    is_damaged: bool = False


def changes_shown(run: StoredRun, *, with_content: bool) -> ShownChanges:
    """What to show of a run. Blocks.

    Args:
        run: as the database's `find` gives it.
        with_content: False shows paths only.
    """
    try:
        found = changes_of(run if with_content else replace(run, changes=None))
    except ValueError:
        paths: list[str] = run.as_json()["changed_files"]
        return ShownChanges((), tuple(paths[:MAX_NAMED]), max(0, len(paths) - MAX_NAMED), is_damaged=True)
    files: list[ShownChange] = []
    left = MAX_DIFF_TEXT
    described = [item for item in found if item.is_described][:MAX_DIFFS]
    for item in described:
        shown = _shown(item, left)
        left -= sum(len(text) for _, text in shown.lines)
        files.append(shown)
    seen = {item.path for item in described}
    others = [item.path for item in found if item.path not in seen]
    return ShownChanges(tuple(files), tuple(others[:MAX_NAMED]), max(0, len(others) - MAX_NAMED))


def _shown(item: StoredChange, most: int) -> ShownChange:
    lines: list[tuple[str, str]] = []
    found = item.lines()
    for sign, text in found[:MAX_DIFF_LINES]:
        line = readable(text if sign == "@" else sign + text)
        most -= min(len(line), _LINE)
        if most < 0:
            break
        lines.append((_KINDS[sign], line if len(line) <= _LINE else line[:_LINE] + "…"))
    return ShownChange(item.path, item.in_words, tuple(lines), len(lines) < len(found))
