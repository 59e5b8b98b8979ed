"""Edits of TOML by tomlkit, which keeps comments, order and white space.

It takes 90 ms of CPU to import, here alone, and 0.25 MB to install, without dependencies: less than the code that would
do it, so that it belongs to the core.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_MARK = "\ufeff"
"""Of UTF-8, which Windows' editors put before a text."""


class UnusualError(ValueError):
    """A text that is TOML, and that tomlkit cannot edit."""


def parse(text: str) -> dict[str, Any]:
    """What a text holds; of a float its text, because ``nan`` is not equal to itself.

    Raises:
        ValueError: it is not TOML.
        RecursionError: too many brackets are in one another.
    """
    import tomllib

    return tomllib.loads(text.removeprefix(_MARK), parse_float=str)


def put_members(text: str, path: Sequence[str], value: dict[str, Any]) -> str:
    """The text with a table at a place: changed where there is one, else added.

    Args:
        text: TOML.
        path: names of tables, the last of which is that of the value.
        value: of the table; its other keys are removed.

    Raises:
        UnusualError: tomlkit cannot edit it.
        ValueError: the text is not TOML, or on the way there is something else than a table.
    """
    import tomlkit
    from tomlkit.items import InlineTable

    document = _document(text)
    table: Any = document
    for name in path[:-1]:
        if name not in table:
            table[name] = tomlkit.table(is_super_table=True)
        table = _as_table(table[name], name)
    if path[-1] not in table:
        # Within {…} there are only such.
        table[path[-1]] = tomlkit.inline_table() if isinstance(table, InlineTable) else tomlkit.table()
    entry = _as_table(table[path[-1]], path[-1])
    with _unusual():
        for key in [key for key in entry if key not in value]:
            del entry[key]
        for key, item in value.items():
            if key not in entry or entry[key] != item:
                entry[key] = item
        return _as_lines_of(text, tomlkit.dumps(document))


def remove(text: str, path: Sequence[str]) -> str:
    """The text without the table at a place; as it is where there is no such table.

    Raises:
        UnusualError: tomlkit cannot edit it.
        ValueError: the text is not TOML.
    """
    import tomlkit

    document = _document(text)
    table: Any = document
    for name in path[:-1]:
        table = table.get(name)
        if not isinstance(table, dict):
            return text
    if path[-1] not in table:
        return text
    with _unusual():
        del table[path[-1]]
        return _as_lines_of(text, tomlkit.dumps(document))


def _document(text: str) -> Any:
    import tomlkit

    parse(text)  # whose messages name the line
    with _unusual():
        return tomlkit.parse(text.removeprefix(_MARK))


@contextmanager
def _unusual() -> Iterator[None]:
    """tomlkit fails on some texts that are TOML, by errors of any kind: an IndexError where the first dotted key of a
    table is removed, and its own for what has over 100 brackets."""
    try:
        yield
    except Exception as exc:
        raise UnusualError(str(exc)) from exc


def _as_table(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a table")
    return value


def _as_lines_of(text: str, written: str) -> str:
    """With the line ends of the text, where those are Windows' throughout, and its byte order mark."""
    written = (_MARK if text.startswith(_MARK) else "") + written
    if text.count("\n") and text.count("\n") == text.count("\r\n"):
        return re.sub(r"(?<!\r)\n", "\r\n", written)
    return written
