"""``_defaults.yaml``: keys that the contracts in a directory, and in those below it, share.

Mappings are merged, key by key; anything else, lists too, is replaced by what is nearer: the contract wins over the
file in its own directory, which wins over those above; a null takes back what was shared. Each value keeps the file and
line where it stands. Contracts of the older spellings, which were written without such files, take nothing from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.discovery import MAX_BYTES, DefaultsFile
from praxis_mcp.contracts.problems import shape
from praxis_mcp.contracts.reading.documents import Document, DocumentError, read_document
from praxis_mcp.contracts.reading.spellings import OLDER_SPEC_KEYS, is_older
from praxis_mcp.diagnostics import Diagnostic, Keys

_OWN = {
    "name": "Each contract has a name of its own.",
    "examples": "Examples are of one tool.",
    **dict.fromkeys((*OLDER_SPEC_KEYS, "params"), "Write its keys next to the others, as in a contract of today."),
}
"""Keys that cannot be shared, and why."""


class DefaultsError(Exception):
    """A file of defaults cannot be used; `finding` says why and where."""

    def __init__(self, finding: Diagnostic) -> None:
        super().__init__(str(finding))
        self.finding = finding


def with_defaults(document: Document, defaults: Sequence[DefaultsFile]) -> Document:
    """A contract's document, completed by what it shares with others.

    Args:
        document: the contract's own.
        defaults: the files that count for it, the nearest last.

    Raises:
        DefaultsError: one of them cannot be used.
    """
    if not defaults or not isinstance(document.data, dict) or is_older(document.data):
        return document
    whole = Document({})
    for file in defaults:
        _lay_over(whole, _read(file), file.path)
    _lay_over(whole, document, None)
    whole.marks[()] = document.place(())
    whole.files.pop((), None)
    return whole


def _read(file: DefaultsFile) -> Document:
    if file.problem is not None:
        raise DefaultsError(file.problem)
    try:
        document = _parse(file.content)
    except DocumentError as exc:
        raise DefaultsError(
            Diagnostic(exc.message, exc.remedy, path=file.path, line=exc.line, column=exc.column)
        ) from exc
    data = document.data
    if not isinstance(data, dict):
        finding = Diagnostic(f"The file holds a mapping, not {shape(data)}.", "Write network: none, and so on.")
    elif (key := next((key for key in data if key in _OWN), None)) is not None:
        line, column = document.place((key,))
        finding = Diagnostic(f'"{key}" cannot be shared.', _OWN[key], key, line=line, column=column)
    else:
        return document
    raise DefaultsError(replace(finding, path=file.path))


@lru_cache(maxsize=32)
def _parse(content: bytes) -> Document:
    """The document. Nobody may change it: a thousand contracts may share it."""
    if len(content) > MAX_BYTES:
        raise DocumentError(f"The file is larger than {MAX_BYTES // 1024} KiB.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DocumentError(
            "The file is not UTF-8 text.", "Save it in UTF-8.", content[: exc.start].count(b"\n") + 1
        ) from exc
    return read_document(text, holds="the keys that contracts share")


def _lay_over(whole: Document, upper: Document, file: Path | None) -> None:
    """Merge `upper` into `whole`; `file` is where its values stand, None for the contract itself."""
    replaced: set[Keys] = set()
    taken_back: set[Keys] = set()

    def merge(below: dict[str, Any], above: dict[str, Any], keys: Keys) -> None:
        for key, value in above.items():
            place = (*keys, key)
            old = below.get(key)
            if isinstance(value, dict) and isinstance(old, dict):
                merge(old, value, place)
            else:
                if key in below:
                    replaced.add(place)
                if key in below and value is None:
                    taken_back.add(place)
                    del below[key]
                else:
                    below[key] = _copied(value)

    merge(whole.data, upper.data, ())
    if replaced:
        _forget(whole, replaced)
    whole.marks |= upper.marks
    whole.written |= upper.written
    whole.commented += upper.commented
    for keys in taken_back:
        whole.marks.pop(keys, None)  # JSON that YAML cannot read has none
    for keys in upper.marks:
        if file is not None:
            whole.files[keys] = file
        else:
            whole.files.pop(keys, None)


def _copied(value: Any) -> Any:
    """A copy in which nothing is shared: neither with other contracts, nor what YAML's aliases share."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _forget(whole: Document, replaced: set[Keys]) -> None:
    """Forget places of values that are no longer there."""

    def is_gone(keys: Keys) -> bool:
        return any(keys[:end] in replaced for end in range(1, len(keys) + 1))

    whole.marks = {keys: place for keys, place in whole.marks.items() if not is_gone(keys)}
    whole.written = {keys: text for keys, text in whole.written.items() if not is_gone(keys)}
    whole.commented = [keys for keys in whole.commented if not is_gone(keys)]
    whole.files = {keys: path for keys, path in whole.files.items() if not is_gone(keys)}
