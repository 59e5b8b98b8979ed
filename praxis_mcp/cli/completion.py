"""What a shell offers behind Tab: names of tools, their arguments, and the values that these may have.

Tools of contracts only: to ask an upstream for its tools may mean to start it. Nobody need have looked at the contracts
when Tab is pressed: a shell gets nothing of them that it could read as more than text (zsh evaluates what it gets,
and Typer leaves backslashes in it; bash puts a word on the line as it is).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer

from praxis_mcp.cli.common import SettingsOptions
from praxis_mcp.errors import PraxisError

if TYPE_CHECKING:
    from praxis_mcp.contracts.catalog.catalog import CatalogEntry

_SEPARATOR = "="
_MOST_VALUES = 50
"""Of one argument: more fill the screen."""
_PLAIN_IN_WORDS = "@%+=:,./-_"
_ODD_IN_TEXT = "\\`$\"'[]"
"""What shells, or the markup of descriptions, know in quotation marks, too."""


def complete_tool(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Names of tools, each with the first line of what it does."""
    return _names(_entries(ctx), incomplete)


def complete_built(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """As `complete_tool`, of tools whose images are built."""
    return _names((entry for entry in _entries(ctx) if entry.traits.is_built), incomplete)


def _names(entries: Iterable[CatalogEntry], incomplete: str) -> list[tuple[str, str]]:
    return [
        (entry.name, _text((entry.description or "").strip().partition("\n")[0]))
        for entry in entries
        if entry.name.startswith(incomplete)
    ]


def complete_word(ctx: typer.Context, incomplete: str) -> list[str]:
    """Arguments of the tool that the command line names: ``unit=words``, or ``text=`` where anything may follow."""
    tool, words = ctx.params.get("name"), ctx.params.get("words") or ()
    schemas = (entry.input_schema for entry in _entries(ctx) if entry.name == tool)
    properties: dict[str, Any] = next(schemas, {}).get("properties", {})
    # bash breaks words at each "=": name, "=" and value are three, and it is the value alone that is offered. A "="
    # that nothing follows yet is not passed on.
    *_, before, last = ("", "", *words)
    if not incomplete and last in properties:
        return _words(_values(properties[last]), incomplete)
    if last == _SEPARATOR and before in properties:
        return _words(_values(properties[before]), incomplete)
    given = {word.partition(_SEPARATOR)[0] for word in words}
    offered = (
        word
        for name, schema in properties.items()
        if name not in given
        for word in ([f"{name}={value}" for value in _values(schema)] or [f"{name}="])
    )
    return _words(offered, incomplete)


def _words(offered: Iterable[str], incomplete: str) -> list[str]:
    """Those that begin so, and are one word to every shell."""
    return [
        word
        for word in offered
        if word.startswith(incomplete) and all(c.isalnum() or c in _PLAIN_IN_WORDS for c in word)
    ]


def _text(text: str) -> str:
    return "".join(c for c in text if c.isprintable() and c not in _ODD_IN_TEXT)


def _values(schema: Any) -> list[str]:
    """What an argument may be, as it is written on a command line; empty where that is not a short list."""
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if not values and schema.get("type") == "boolean":
        values = [True, False]
    return [value if isinstance(value, str) else json.dumps(value) for value in values[:_MOST_VALUES]]


def _entries(ctx: typer.Context) -> Sequence[CatalogEntry]:
    """The tools that the command would see; none where they are not known: Tab says nothing, and breaks nothing."""
    import anyio

    from praxis_mcp.contracts.catalog.catalog import Catalog

    given = {item.name: ctx.params[item.name] for item in fields(SettingsOptions) if item.name in ctx.params}
    with suppress(PraxisError, OSError):
        catalog = Catalog(SettingsOptions(**given).read(warn=False).tool_directories)
        anyio.run(catalog.load)
        return catalog.entries()
    return ()
