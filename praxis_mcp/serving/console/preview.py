"""Artifacts as a page shows them: images, tables, JSON, text. Everything that is read is bounded, and what a file is is
decided by its bytes."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

from praxis_mcp.engines.base import Artifact
from praxis_mcp.serving.console.text import json_text, readable
from praxis_mcp.serving.mcp.media import IMAGES, decode_text, media_type
from praxis_mcp.support.rooted import open_kept

LOOKED_INTO = 256 * 1024
"""Bytes of an artifact that are looked at."""
TEXT_SHOWN = 16 * 1024
"""Characters of one that are shown as text."""
MAX_ROWS = 100
MAX_COLUMNS = 30
MAX_CELL = 500
"""Characters of a table's cell."""
MAX_PREVIEWS = 20
"""Artifacts of one run that are looked into; the others are named."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What is shown of an artifact.

    Attributes:
        kind: ``image``, ``table``, ``text``, ``binary``, or ``gone``.
        text: of ``text``.
        rows: of ``table``; the first one is its head.
        is_cut: whether there is more.
        mime: of ``image``.
    """

    kind: str
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    is_cut: bool = False
    mime: str = ""


def preview(artifact: Artifact) -> Preview:
    """What to show of it. Blocks."""
    try:
        with open_kept(artifact.file) as file:
            data = file.read(LOOKED_INTO + 1)
    except OSError:
        return Preview("gone")
    is_cut, data = len(data) > LOOKED_INTO, data[:LOOKED_INTO]
    mime = media_type(data) or ""
    if mime in IMAGES:
        return Preview("image", mime=mime)
    text = None if mime else decode_text(data, cut=is_cut)
    if text is None:
        return Preview("binary")
    name = artifact.name.lower()
    if name.endswith((".csv", ".tsv")):
        return _table_of_lines(text, "\t" if name.endswith(".tsv") else ",", is_cut=is_cut)
    if not is_cut and name.endswith((".json", ".ipynb", ".geojson")):
        return _of_json(text)
    return _text(text, is_cut=is_cut)


def image_type(artifact: Artifact) -> str | None:
    """The MIME type of an image that browsers may be shown; None where its bytes are something else. Blocks."""
    try:
        with open_kept(artifact.file) as file:
            mime = media_type(file.read(64))
    except OSError:
        return None
    return mime if mime in IMAGES else None


def _text(text: str, *, is_cut: bool = False) -> Preview:
    return Preview("text", readable(text[:TEXT_SHOWN]), is_cut=is_cut or len(text) > TEXT_SHOWN)


def _table_of_lines(text: str, separator: str, *, is_cut: bool) -> Preview:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if len(rows) > MAX_ROWS:
                is_cut = True
                break
            rows.append(row)
    except csv.Error:
        return _text(text, is_cut=is_cut)
    return _table(rows, is_cut=is_cut) if rows else _text(text)


def _of_json(text: str) -> Preview:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _text(text)
    records = _flat_records(value)
    if records:
        names = list(dict.fromkeys(name for record in records[:MAX_ROWS] for name in record))
        body = [[_cell(record.get(name)) for name in names] for record in records[:MAX_ROWS]]
        return _table([names, *body], is_cut=len(records) > MAX_ROWS)
    shown, is_cut = json_text(value, TEXT_SHOWN)
    return Preview("text", readable(shown), is_cut=is_cut)


def _flat_records(value: Any) -> list[dict[str, Any]]:
    """The objects of an array of nothing but objects with plain values; empty for anything else."""
    if not isinstance(value, list) or not value:
        return []
    for item in value:
        if not isinstance(item, dict) or not item or any(isinstance(part, dict | list) for part in item.values()):
            return []
    return value


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _table(rows: list[list[str]], *, is_cut: bool) -> Preview:
    is_cut = is_cut or any(len(row) > MAX_COLUMNS for row in rows)
    width = min(MAX_COLUMNS, max(map(len, rows)))
    even = (row[:width] + [""] * (width - len(row)) for row in rows)
    return Preview("table", rows=tuple(tuple(readable(cell[:MAX_CELL]) for cell in row) for row in even), is_cut=is_cut)
