"""Tools found by words: BM25 over names, titles, descriptions, parameters and tags, by SQLite's FTS5 in memory."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from praxis_mcp.contracts.catalog.catalog import CatalogEntry
from praxis_mcp.federation.upstreams import Entry

MOST_WORDS = 32
"""Words of a question that count; a question is a sentence."""
_COLUMNS = ("name", "title", "description", "parameters", "tags")
_WEIGHTS = (10.0, 6.0, 4.0, 1.5, 5.0)
"""How much a word counts where it stands, in the order of the columns."""
_MOST_TEXT = 16 * 1024
"""Characters of one column of one tool that are read."""
_WORD = re.compile(r"[^\W_]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_STOP = frozenset(
    _WORD.findall(
        "a an and any are as at be by can could do does find for from get give had has have help how i if in "
        "into is it its just me my need of on one or our please show so some somebody someone something tell "
        "than that the their them then there these they this those to tool us use using want was we what when "
        "where which who whose will with would you your"
    )
)
"""Words that say nothing of what a tool does. Where a question has no others, they count."""

_SAME = {
    word: tuple(other for other in group if other != word)
    for group in (
        line.split()
        for line in (
            "get fetch read show view retrieve list",
            "find search query lookup",
            "create make add new insert",
            "update change edit modify set",
            "delete remove erase drop",
            "send post publish",
            "run execute start launch",
            "stop cancel abort end kill",
            "copy clone duplicate",
        )
    )
    for word in group
}
"""Verbs that name the same action: a tool is called by one, and asked for by another. They count in names and titles
only, where a verb says what the tool does. Measured on the thousand contracts of tests/serving/many_tools.py, asked for
by "erase stripe refund" and the like: the tool is the first of the answers for 78 of 100 (36 without)."""


def has_fts5() -> bool:
    """Whether this Python's SQLite was built with full-text search."""
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute("CREATE VIRTUAL TABLE probe USING fts5(text)")
        except sqlite3.Error:
            return False
    return True


class ToolIndex:
    """The index of some tools. It is made, and asked, in any thread; each takes its turn."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._lock = threading.Lock()
        self._names = tuple(entry.name for entry in entries)
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        columns = ", ".join(_COLUMNS)
        self._database.execute(f"CREATE VIRTUAL TABLE tools USING fts5({columns}, tokenize='porter unicode61')")
        rows = ((number, *_texts(entry)) for number, entry in enumerate(entries))
        self._database.executemany(
            "INSERT INTO tools(rowid, name, title, description, parameters, tags) VALUES (?, ?, ?, ?, ?, ?)", rows
        )

    def close(self) -> None:
        """Free it."""
        with self._lock:
            self._database.close()

    def find(self, question: str, most: int, is_wanted: Callable[[str], bool] = lambda _: True) -> list[str]:
        """Names of the tools that fit best, best first. A tool whose name is the question is the first.

        Args:
            question: words, in any language that has spaces.
            most: how many names at most.
            is_wanted: whether a tool counts.
        """
        found = [name for name in self._names if name == question.strip() and is_wanted(name)]
        terms = _terms(question)
        if not terms:
            return found
        # Whole words, as the tokenizer stems them, and what begins with one.
        match = " OR ".join(f'"{term}" OR "{term}"*' if len(term) > 2 else f'"{term}"' for term in terms)
        if same := dict.fromkeys(other for word in words_of(question)[:MOST_WORDS] for other in _SAME.get(word, ())):
            match = f"{match} OR {{name title}} : ({' OR '.join(same)})"
        order = f"bm25(tools, {', '.join(str(weight) for weight in _WEIGHTS)}), rowid"
        with self._lock:
            rows = self._database.execute(f"SELECT rowid FROM tools WHERE tools MATCH ? ORDER BY {order}", (match,))  # noqa: S608 - constants
            for (number,) in rows:
                if len(found) >= most:
                    break
                name = self._names[number]
                if name not in found and is_wanted(name):
                    found.append(name)
            rows.close()
        return found


def words_of(text: str) -> list[str]:
    """Words, in small letters; those of names apart at ``_``, ``-``, ``.`` and humps (``listPods``)."""
    return [part.lower() for word in _WORD.findall(text) for part in _HUMP.split(word) if part]


def _terms(question: str) -> list[str]:
    words = list(dict.fromkeys(words_of(question)))
    return [word for word in words if word not in _STOP][:MOST_WORDS] or words[:MOST_WORDS]


def _texts(entry: Entry) -> Iterator[str]:
    tags = entry.traits.tags if isinstance(entry, CatalogEntry) else (entry.upstream,)
    names = f"{entry.name} {' '.join(words_of(entry.name))}"
    parameters = " ".join(_parameter_words(entry.input_schema))
    for text in (names, entry.title or "", entry.description or "", parameters, " ".join(tags)):
        cut = text[:_MOST_TEXT]
        yield f"{cut} {' '.join(words_of(cut))}" if _HUMP.search(cut) else cut


def _parameter_words(schema: Mapping[str, Any]) -> Iterator[str]:
    properties = schema.get("properties")
    for name, about in properties.items() if isinstance(properties, Mapping) else ():
        yield " ".join(words_of(str(name)))
        description = about.get("description") if isinstance(about, Mapping) else None
        if isinstance(description, str):
            yield description
