"""Schemas of OpenAPI 3.0 and 3.1 as JSON Schema 2020-12 that stands by itself: references within the document are
replaced by what they name, to a bounded depth."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from referencing import Registry, Resource
from referencing.exceptions import Unresolvable

from praxis_mcp.contracts.schemas.patterns import unusable_patterns
from praxis_mcp.contracts.vocabulary import KEYWORDS, LIST_OF_SCHEMAS, MAP_OF_SCHEMAS, ONE_SCHEMA
from praxis_mcp.errors import ArgumentError

MAX_SCHEMA_DEPTH = 6
"""Schemas in one another, beyond which anything is allowed: a model needs no more to write an argument."""
MAX_SCHEMA_PARTS = 1500
"""Schemas in one, references followed; what is beyond is open as well."""
_MOST_REFERENCES = 32
_LONGEST_TEXT = 300
_MOST_ALTERNATIVES = 200
_LEFT_OUT = frozenset({
    "$id", "$schema", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "$defs", "definitions", "$comment",
    "title", "deprecated", "readOnly", "examples", "if", "then", "else", "unevaluatedItems", "unevaluatedProperties",
    "dependentSchemas",
})  # fmt: skip
_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})


class Schemas:
    """The schemas of a document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._resolver = Registry().with_resource("", Resource.opaque(document)).resolver()
        self._parts = 0

    def followed(self, part: Any) -> Any:
        """What a reference names, or the part itself.

        Raises:
            ArgumentError: the reference leaves the document, leads nowhere or to itself.
        """
        for _ in range(_MOST_REFERENCES):
            reference = part.get("$ref") if isinstance(part, Mapping) else None
            if not isinstance(reference, str):
                return part
            if not reference.startswith("#"):
                raise ArgumentError(
                    f"The reference {reference[:100]!r} leaves the file, and nothing is fetched.",
                    remedy="Bundle the description into one file, such as by: npx @redocly/cli bundle FILE",
                )
            siblings = {key: value for key, value in part.items() if key in ("description", "default")}
            try:
                found = self._resolver.lookup(reference).contents
            except (Unresolvable, ValueError, TypeError) as exc:
                raise ArgumentError(
                    f"The reference {reference[:100]!r} leads nowhere.", remedy="Fix the file."
                ) from exc
            part = {**found, **siblings} if isinstance(found, Mapping) and siblings else found
        raise ArgumentError("A reference in the description leads to itself.", remedy="Fix the file.")

    def converted(self, schema: Any) -> dict[str, Any]:
        """A schema without references; of anything else, an open one.

        Raises:
            ArgumentError: see `followed`.
        """
        self._parts = 0
        return self._converted(schema, 0)

    def _converted(self, schema: Any, depth: int) -> dict[str, Any]:
        schema = self.followed(schema)
        self._parts += 1
        if not isinstance(schema, Mapping) or depth > MAX_SCHEMA_DEPTH or self._parts > MAX_SCHEMA_PARTS:
            return {"not": {}} if schema is False else {}
        found: dict[str, Any] = {}
        for key, value in schema.items():
            if key not in KEYWORDS or key in _LEFT_OUT:
                continue
            if key in ONE_SCHEMA:
                found[key] = value if isinstance(value, bool) else self._converted(value, depth + 1)
            elif key in LIST_OF_SCHEMAS and isinstance(value, list):
                found[key] = [self._converted(item, depth + 1) for item in value[:_MOST_ALTERNATIVES]]
            elif key in MAP_OF_SCHEMAS and isinstance(value, Mapping):
                found[key] = {
                    str(name): self._converted(item, depth + 1)
                    for name, item in islice(value.items(), MAX_SCHEMA_PARTS)
                    if not (isinstance(item, Mapping) and item.get("readOnly") is True)
                }
            elif key in LIST_OF_SCHEMAS or key in MAP_OF_SCHEMAS:
                continue
            elif key == "description":
                text = " ".join(str(value)[: 4 * _LONGEST_TEXT].split())
                found[key] = "".join(c for c in text if c.isprintable())[:_LONGEST_TEXT]
            elif key == "pattern":
                if isinstance(value, str) and not list(unusable_patterns({"pattern": value})):
                    found[key] = value
            else:
                found[key] = value
        self._as_of_today(schema, found)
        return _merged(found)

    def _as_of_today(self, schema: Mapping[str, Any], found: dict[str, Any]) -> None:
        """What OpenAPI 3.0 says in its own way."""
        kinds = found.get("type")
        known = [
            kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str) and kind in _TYPES
        ]
        found.pop("type", None)
        for limit, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(found.get(limit), bool) and found.pop(limit) and bound in found:
                found[limit] = found.pop(bound)
        if schema.get("nullable", schema.get("x-nullable")) is True and "null" not in known and known:
            known.append("null")
            if isinstance(found.get("enum"), list) and None not in found["enum"]:
                found["enum"] = [*found["enum"], None]
        if known:
            found["type"] = known[0] if len(known) == 1 else known
        if isinstance(found.get("required"), list):
            members = found.get("properties", {})
            given = [name for name in found["required"][:MAX_SCHEMA_PARTS] if isinstance(name, str)]
            names = [name for name in given if not members or name in members]
            found["required"] = list(dict.fromkeys(names))
        elif "required" in found:
            del found["required"]
        if isinstance(found.get("items"), list):
            del found["items"]
        example = schema.get(
            "example", (schema.get("examples") or [None])[0] if isinstance(schema.get("examples"), list) else None
        )
        if isinstance(example, str | int | float | bool) and len(str(example)) <= _LONGEST_TEXT:
            found["examples"] = [example]

    def example(self, parameter: Mapping[str, Any], depth: int = 0) -> Any:
        """A value that fits a schema, as far as its common keywords say."""
        for key in ("examples", "enum"):
            if isinstance(parameter.get(key), list) and parameter[key]:
                return parameter[key][0]
        if "const" in parameter:
            return parameter["const"]
        for key in ("oneOf", "anyOf", "allOf"):
            if "type" not in parameter and isinstance(parameter.get(key), list) and parameter[key]:
                return self.example(parameter[key][0], depth + 1)
        kinds = parameter.get("type")
        match kinds[0] if isinstance(kinds, list) else kinds:
            case "integer" | "number":
                return parameter.get("minimum", 1)
            case "boolean":
                return False
            case "null":
                return None
            case "array":
                least = parameter.get("minItems")
                least = least if isinstance(least, int) else 0
                return [self.example(parameter.get("items") or {}, depth + 1)] * min(least, 5) if depth < 5 else []
            case "object":
                members = parameter.get("properties", {})
                return {name: self.example(members.get(name, {}), depth + 1) for name in parameter.get("required", [])
                        if isinstance(parameter.get("required"), list)} if depth < 5 else {}  # fmt: skip
            case _:
                return _TEXTS.get(str(parameter.get("format")), "text")


_TEXTS = {
    "date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z", "email": "someone@example.com",
    "uuid": "123e4567-e89b-12d3-a456-426614174000", "uri": "https://example.com/", "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1", "hostname": "example.com", "byte": "dGV4dA==",
}  # fmt: skip


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """Objects that `allOf` puts together, as one: models read that better, and its members are parameters then."""
    parts = schema.get("allOf")
    plain = {"type", "properties", "required", "description", "additionalProperties", "examples"}
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and part.keys() <= plain and part.get("type", "object") == "object" for part in parts
    ):
        return schema
    rest = {key: value for key, value in schema.items() if key != "allOf"}
    if not rest.keys() <= plain or not any("properties" in part for part in (*parts, rest)):
        return schema
    result: dict[str, Any] = {"type": "object", "properties": {}}
    required: list[str] = []
    for part in (*parts, rest):
        result["properties"].update(part.get("properties", {}))
        required += part.get("required", [])
        if "description" in part:
            result["description"] = part["description"]
    if required:
        result["required"] = list(dict.fromkeys(required))
    return result
