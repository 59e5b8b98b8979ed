"""Structured content and its schema agree in both eras, whatever the schema."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from praxis_mcp.serving.mcp.dialect import Dialect, content_for, schema_for

LEGACY = Dialect("2025-11-25")
MODERN = Dialect("2026-07-28")

CASES: list[tuple[dict[str, Any], Any, Any]] = [
    ({"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}}, [1], ["a"]),
    ({"type": ["array", "null"], "items": {"$ref": "#"}}, [[[]]], [[1]]),
    ({"$ref": "#/$defs/o", "$defs": {"o": {"type": "object", "required": ["a"]}}}, {"a": 1}, {}),
    ({"anyOf": [{"type": "string"}, {"items": {"$ref": "#/anyOf/0"}, "type": "array"}]}, ["a"], [1]),
    ({"$id": "urn:x", "type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "null"}}}, [None], [1]),
    ({"type": "string", "const": {"$ref": "#/a"}}, {"$ref": "#/a"}, "b"),
    ({"type": "array", "items": {"properties": {"const": {"$ref": "#/$defs/n"}}}, "$defs": {"n": {"type": "null"}}},
     [{"const": None}], [{"const": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), CASES)
def test_a_wrapped_schema_takes_and_refuses_what_the_plain_one_does(schema: dict, good: Any, bad: Any) -> None:
    for dialect in (LEGACY, MODERN):
        shown = schema_for(schema, dialect)
        assert shown is not None
        assert dialect.modern or shown["type"] == "object"
        validator = Draft202012Validator(shown)
        plain = Draft202012Validator(schema)
        assert validator.is_valid(content_for(good, schema, dialect)) == plain.is_valid(good)
        assert validator.is_valid(content_for(bad, schema, dialect)) == plain.is_valid(bad)
        assert not plain.is_valid(bad)


def test_a_schema_of_an_object_is_left_alone() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {}}}
    assert schema_for(schema, LEGACY) is schema
    assert content_for({"a": 1}, schema, LEGACY) == {"a": 1}
