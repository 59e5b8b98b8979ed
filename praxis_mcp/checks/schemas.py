"""Checks of input schemas: valid JSON Schema that clients, or the APIs of models, are known to refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from praxis_mcp.checks.checked import Checked
from praxis_mcp.contracts.schemas.schema import parameter_schema
from praxis_mcp.contracts.vocabulary import schemas_inside
from praxis_mcp.diagnostics import Keys

_COMBINED = ("oneOf", "anyOf", "allOf", "enum", "not")
_TYPED_OTHERWISE = ("$ref", "enum", "const", *_COMBINED)
_DEFINITIONS = ("$defs", "definitions")


def check_schemas(tool: Checked) -> None:
    """Report what clients would not take of a tool's input schema."""
    root = tool.reading.parameters.root
    keywords = tool.contract.input_keywords
    for keyword in _COMBINED:
        if keyword in keywords:
            tool.report("root-combination", (*root, keyword), f"{keyword} is at the root of the input schema.")
    for parameter in tool.contract.parameters:
        for inside, part in schemas_inside(parameter_schema(parameter)):
            _check(tool, tool.place(parameter.name, *inside), part)
    for key in _DEFINITIONS:
        definitions = keywords.get(key)
        for name, definition in definitions.items() if isinstance(definitions, Mapping) else ():
            for inside, part in schemas_inside(definition):
                _check(tool, (*root, key, name, *inside), part)


def _check(tool: Checked, place: Keys, schema: Mapping[str, Any]) -> None:
    kind = schema.get("type")
    if isinstance(kind, list):
        tool.report("type-list", (*place, "type"), f"This may be of {len(kind)} types: {', '.join(map(str, kind))}.")
    elif kind is None and not any(key in schema for key in _TYPED_OTHERWISE) and _stands_for_a_value(place):
        tool.report("no-type", place, "This has no type.")
    if "array" in (kind if isinstance(kind, list) else (kind,)) and not {"items", "prefixItems"} & schema.keys():
        tool.report("array-items", place, "This array does not say what its items are.")
    if "$ref" in schema:
        tool.report("reference", (*place, "$ref"), "This refers to a definition in another place.")
    if "const" in schema:
        tool.report("constant", (*place, "const"), "This is a constant.")
    choices = schema.get("enum")
    if isinstance(choices, list):
        if not choices or "" in choices:
            tool.report("empty-choice", (*place, "enum"), "The choices are empty, or one of them is.")
        if any(not isinstance(choice, str) for choice in choices):
            tool.report("choice-types", (*place, "enum"), "Some of the choices are not texts.")


def _stands_for_a_value(place: Keys) -> bool:
    """Whether a schema describes a value by itself; those under ``not``, ``if`` or in a list of forms only add to one
    around them."""
    return not any(key in ("not", "if", "then", "else", "allOf", "anyOf", "oneOf", "contains") for key in place)
