"""Types and schemas as contracts write them → as JSON Schema writes them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from praxis_mcp.contracts.problems import quoted, shape
from praxis_mcp.contracts.reading.findings import Findings
from praxis_mcp.contracts.vocabulary import (
    ANY_TYPE,
    LIST_OF_SCHEMAS,
    MAP_OF_SCHEMAS,
    ONE_SCHEMA,
    TYPE_ALIASES,
)
from praxis_mcp.diagnostics import Keys

_MEANT_FORMATS = {
    "date": "date", "datetime": "date-time", "date-time": "date-time", "time": "time", "uri": "uri", "url": "uri",
    "email": "email", "uuid": "uuid", "ipv4": "ipv4", "ipv6": "ipv6", "hostname": "hostname", "password": "password",
}  # fmt: skip

_FORMATS = (
    "date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6", "uri",
    "uri-reference", "iri", "iri-reference", "uri-template", "uuid", "json-pointer", "relative-json-pointer", "regex",
)  # fmt: skip
"""The formats of JSON Schema 2020-12 (validation, section 7.3)."""
# OpenAPI's registry, of which some are a letter away from one of the above.
_KNOWN_FORMATS = frozenset({
    *_FORMATS, "password", "byte", "binary", "char", "int32", "int64", "uint32", "uint64", "float", "double", "decimal",
    "time-local", "date-time-local", "base64url", "html", "commonmark", "media-range", "http-date",
})  # fmt: skip


def map_type(value: Any, keys: Keys, findings: Findings) -> str | list[str] | None:
    """A type as JSON Schema names it; None where it is open. What cannot be mapped is reported."""
    if isinstance(value, list) and value:
        mapped = [map_type(item, (*keys, index), findings) for index, item in enumerate(value)]
        return None if None in mapped else list(dict.fromkeys(item for item in mapped if isinstance(item, str)))
    if value is None and findings.document.written.get(keys, "~") == "null":
        return "null"  # `type: [string, null]`: YAML reads the word as an empty value
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(word, str) and word in TYPE_ALIASES:
        return TYPE_ALIASES[word]
    if isinstance(word, str) and word in ANY_TYPE:
        return None
    hint = ""
    remedy = "Write string, integer, number, boolean, array, object or null."
    if isinstance(word, str) and word in _MEANT_FORMATS:
        remedy = f"Write type: string and format: {_MEANT_FORMATS[word]}."
    elif isinstance(word, str) and ("[" in word or "<" in word):
        remedy = "Write type: array and items: {type: …}."
    elif isinstance(word, str):
        hint = findings.hint(word, (*TYPE_ALIASES, *ANY_TYPE))
    findings.error(keys, f"{shape(value)} is not a type{hint}.", remedy)
    return None


def map_schema(schema: Any, keys: Keys, findings: Findings) -> Any:
    """A schema with the types in it, and in every schema inside it, as JSON Schema names them.

    References that leave the document are reported.
    """
    if not isinstance(schema, Mapping):
        return schema
    mapped: dict[str, Any] = {}
    for key, value in schema.items():
        where = (*keys, key)
        if key == "type":
            kind = map_type(value, where, findings)
            if kind is not None:
                mapped[key] = kind
        else:
            mapped[key] = map_keyword(key, value, where, findings)
    return mapped


def map_keyword(key: str, value: Any, keys: Keys, findings: Findings) -> Any:
    """The value of a keyword, with the schemas inside it mapped as `map_schema` does."""
    if key in ONE_SCHEMA:
        return map_schema(value, keys, findings)
    if key in LIST_OF_SCHEMAS and isinstance(value, list):
        return [map_schema(item, (*keys, index), findings) for index, item in enumerate(value)]
    if key in MAP_OF_SCHEMAS and isinstance(value, Mapping):
        return {name: map_schema(item, (*keys, name), findings) for name, item in value.items()}
    if key in ("$ref", "$dynamicRef") and not (isinstance(value, str) and value.startswith("#")):
        findings.error(
            keys,
            f"The reference {shape(value)} leaves the contract, and nothing is fetched.",
            "Write the definition into the contract, under $defs, and refer to it as #/$defs/NAME.",
        )
    if key == "format" and isinstance(value, str) and value not in _KNOWN_FORMATS:
        meant = _MEANT_FORMATS.get(value) or next(iter(difflib.get_close_matches(value, _FORMATS, n=1)), None)
        if meant is not None:
            findings.warning(
                keys,
                f'{quoted(value)} is not a format of JSON Schema (did you mean "{meant}"?), and nothing checks it.',
                f"Write format: {meant}.",
            )
    return value
