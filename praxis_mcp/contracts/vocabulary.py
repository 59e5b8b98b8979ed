"""The words of JSON Schema that contracts may use, and what people write instead of them: tables, and walks by them.

What a tool says of itself in a schema is looked at too: a description may hold characters that no terminal, page or
editor shows (tags of U+E0000, zero-width and bidirectional controls) and that models read all the same: instructions
that nobody has approved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from praxis_mcp.diagnostics import Keys
from praxis_mcp.support.text import unseen, visible

TYPE_ALIASES: dict[str, str] = {
    **dict.fromkeys(("string", "str", "text", "char", "file", "path", "filepath", "directory"), "string"),
    **dict.fromkeys(("integer", "int", "long", "int32", "int64", "uint"), "integer"),
    **dict.fromkeys(("number", "num", "float", "double", "decimal", "float32", "float64"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "list", "sequence"), "array"),
    **dict.fromkeys(("object", "obj", "dict", "dictionary", "map", "mapping"), "object"),
    **dict.fromkeys(("null", "none"), "null"),
}
ANY_TYPE = frozenset({"any", "mixed"})
SHORT_KEYWORDS = {
    "min": "minimum", "max": "maximum", "min_length": "minLength", "max_length": "maxLength", "min_items": "minItems",
    "max_items": "maxItems", "unique_items": "uniqueItems", "multiple_of": "multipleOf",
    "exclusive_min": "exclusiveMinimum", "exclusive_max": "exclusiveMaximum",
    "additional_properties": "additionalProperties", "pattern_properties": "patternProperties",
    "content_encoding": "contentEncoding", "content_media_type": "contentMediaType", "any_of": "anyOf",
    "one_of": "oneOf", "all_of": "allOf", "write_only": "writeOnly", "read_only": "readOnly",
}  # fmt: skip
"""Keywords as they may be written in a parameter's definition → as JSON Schema writes them."""

ONE_SCHEMA = frozenset({
    "items", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "propertyNames", "contains", "not",
    "if", "then", "else", "contentSchema",
})  # fmt: skip
LIST_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
MAP_OF_SCHEMAS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_TEXTS = frozenset({"description", "title", "format", "contentEncoding", "contentMediaType", "$comment"})

KEYWORDS = (
    ONE_SCHEMA | LIST_OF_SCHEMAS | MAP_OF_SCHEMAS | _COUNTS | _NUMBERS | _TEXTS
    | {"type", "enum", "const", "default", "examples", "multipleOf", "pattern", "uniqueItems", "minContains",
       "maxContains", "required", "dependentRequired", "deprecated", "readOnly", "writeOnly", "$ref", "$id", "$schema",
       "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary"}
)  # fmt: skip
"""Every keyword of the 2020-12 dialect, with the older `definitions`."""

_JSON_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})


WORDS = ("title", "description", "$comment")
"""Keywords that only describe. All other text of a schema means something, and cannot be shown otherwise than it is."""

_ODD = ("\\u", "\\b", "\\f", "\\r", "\x7f")
"""How JSON in ASCII writes whatever may be odd; some honest text as well, which is then looked at."""


def schemas_inside(schema: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Mapping[str, Any]]]:
    """A schema and every schema inside it, each with its place."""
    if not isinstance(schema, Mapping):
        return
    yield keys, schema
    for key, value in schema.items():
        if key in ONE_SCHEMA:
            yield from schemas_inside(value, (*keys, key))
        elif key in LIST_OF_SCHEMAS and isinstance(value, list):
            for index, item in enumerate(value):
                yield from schemas_inside(item, (*keys, key, index))
        elif key in MAP_OF_SCHEMAS and isinstance(value, Mapping):
            for name, item in value.items():
                yield from schemas_inside(item, (*keys, key, name))


def without_booleans(schema: Any) -> Any:
    """A copy of a schema in which ``true`` is ``{}`` and ``false`` is ``{not: {}}``, wherever a keyword takes a schema.

    They mean the same (JSON Schema 2020-12, core, section 4.3.2), but clients whose models know objects only refuse the
    whole ``tools/list`` for one of them: the TypeScript SDK up to 1.32 is one. ``additionalProperties`` stays as it is
    written: it has taken a boolean since draft 3, all clients read it, and some models' APIs insist on ``false`` there.
    Without recursion, so that no depth is too much.
    """
    root: list[Any] = [schema]
    todo: list[tuple[Any, str | int]] = [(root, 0)]
    while todo:
        holder, place = todo.pop()
        part = holder[place]
        if isinstance(part, bool):
            holder[place] = {} if part else {"not": {}}
        elif isinstance(part, Mapping):
            copied = holder[place] = dict(part)
            for key, value in copied.items():
                if (key in LIST_OF_SCHEMAS or key == "items") and isinstance(value, list):
                    copied[key] = inside = list(value)
                    todo += [(inside, index) for index in range(len(inside))]
                elif key in ONE_SCHEMA and not (key == "additionalProperties" and isinstance(value, bool)):
                    todo.append((copied, key))
                elif (key in MAP_OF_SCHEMAS or key == "dependencies") and isinstance(value, Mapping):
                    copied[key] = named = dict(value)
                    todo += [(named, name) for name in named]
    return root[0]


def references(schema: Any) -> Iterator[str]:
    """Every ``$ref`` in a schema and the schemas inside it."""
    for _, part in schemas_inside(schema):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]


def resolves(reference: str, schema: Mapping[str, Any]) -> bool:
    """Whether a pointer such as ``#/$defs/a`` leads somewhere in a schema; True for references of other kinds."""
    if not reference.startswith("#/"):
        return True
    value: Any = schema
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return False
    return True


def is_plainly_valid(schema: Any) -> bool:
    """Whether a schema uses only common keywords, each rightly, so that the metaschema need not be asked.

    That takes jsonschema some 3 ms a contract, and its import 30 ms; nearly every contract passes here.
    """
    return isinstance(schema, bool) or (
        isinstance(schema, Mapping) and all(_is_plain(key, value) for key, value in schema.items())
    )


def _is_plain(key: str, value: Any) -> bool:
    if key in _TEXTS:
        return isinstance(value, str)
    if key in ("default", "const"):
        return True
    if key in _NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if key in _COUNTS:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    match key:
        case "type":
            return isinstance(value, str) and value in _JSON_TYPES
        case "enum":
            return isinstance(value, list)
        case "items" | "additionalProperties":
            return is_plainly_valid(value)
        case "properties":
            return isinstance(value, Mapping) and all(is_plainly_valid(item) for item in value.values())
        case "required":
            return isinstance(value, list) and all(isinstance(item, str) for item in value) and _unique(value)
        case _:
            return False


def _unique(names: list[str]) -> bool:
    return len(set(names)) == len(names)


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


def with_visible_texts(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every title, description and comment as `visible` shows it; the same object where they are plain.
    Without recursion, so that no depth is too much."""
    if _has_plain_texts(schema):
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


def find_odd_texts(schema: Mapping[str, Any]) -> Iterator[OddText]:
    """Every text in a schema that holds what cannot be seen. In names and values a plain control character is left to
    its meaning: ``\\x1f`` is a separator, and JSON shows it."""
    if _has_plain_texts(schema):
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


def _has_plain_texts(schema: Mapping[str, Any]) -> bool:
    try:
        text = json.dumps(schema, default=str)
    except (ValueError, RecursionError):
        return False
    return not any(odd in text for odd in _ODD)
