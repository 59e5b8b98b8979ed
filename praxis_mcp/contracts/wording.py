"""What a tool says of itself, as models are sent it: nothing in it can be read by a model and not by a person.

A description may hold characters that no terminal, page or editor shows (tags of U+E0000, zero-width and bidirectional
controls) and that models read all the same: instructions that nobody has approved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from praxis_mcp.support.text import unseen, visible

WORDS = ("title", "description", "$comment")
"""Keywords that only describe. All other text of a schema means something, and cannot be shown otherwise than it is."""

_ODD = ("\\u", "\\b", "\\f", "\\r", "\x7f")
"""How JSON in ASCII writes whatever may be odd; some honest text as well, which is then looked at."""


@dataclass(frozen=True, slots=True)
class OddText:
    """A text in a schema that holds what cannot be seen.

    Attributes:
        keys: where it is.
        describes: whether it only describes; the other texts are names and values.
        characters: what it holds, by number.
    """

    keys: tuple[str | int, ...]
    describes: bool
    characters: tuple[str, ...]

    @property
    def what(self) -> str:
        """The keyword that describes, or that it is a text with a meaning."""
        return str(self.keys[-1]) if self.describes else "name or value"


def worded(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every title, description and comment as `visible` shows it; the same object where they are plain.
    Without recursion, so that no depth is too much."""
    if _is_plain(schema):
        return schema
    root: list[Any] = [schema]
    todo: list[tuple[Any, str | int]] = [(root, 0)]
    while todo:
        holder, place = todo.pop()
        part = holder[place]
        copied: Any = dict(part) if isinstance(part, Mapping) else list(part)
        holder[place] = copied
        for key, value in list(copied.items() if isinstance(copied, dict) else enumerate(copied)):
            if isinstance(value, Mapping | list):
                todo.append((copied, key))
            elif key in WORDS and isinstance(value, str):
                copied[key] = visible(value)
    return root[0]


def odd_texts(schema: Mapping[str, Any]) -> Iterator[OddText]:
    """Every text in a schema that holds what cannot be seen. In names and values a plain control character is left to
    its meaning: ``\\x1f`` is a separator, and JSON shows it."""
    if _is_plain(schema):
        return
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), schema)]
    while todo:
        keys, part = todo.pop()
        if isinstance(part, str):
            describes = bool(keys) and keys[-1] in WORDS
            found = unseen(part)
            characters = found if describes else tuple(item for item in found if not item.startswith("\\x"))
            if characters:
                yield OddText(keys, describes, characters)
        elif isinstance(part, Mapping):
            for key, value in part.items():
                if hidden := tuple(item for item in unseen(str(key)) if not item.startswith("\\x")):
                    yield OddText((*keys, str(key)), describes=False, characters=hidden)
                todo.append(((*keys, str(key)), value))
        elif isinstance(part, list):
            todo += [((*keys, index), item) for index, item in enumerate(part)]


def _is_plain(schema: Mapping[str, Any]) -> bool:
    try:
        text = json.dumps(schema, default=str)
    except (ValueError, RecursionError):
        return False
    return not any(odd in text for odd in _ODD)
