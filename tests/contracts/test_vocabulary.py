"""Schemas without booleans mean what they meant: clients whose models know objects only take them."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from praxis_mcp.contracts.schemas.schema import check_output, input_schema, validate_arguments
from praxis_mcp.contracts.vocabulary import schemas_inside, without_booleans
from praxis_mcp.errors import ArgumentError
from tests.contracts.schemas.test_schema import one, tool

ONE = ("items", "unevaluatedItems", "unevaluatedProperties", "propertyNames", "contains", "not", "if", "then", "else")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs")


def with_parts(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keywords: dict[str, st.SearchStrategy[Any]] = dict.fromkeys((*ONE, "additionalProperties"), inner)
    keywords |= {name: st.lists(inner, min_size=1, max_size=2) for name in LISTS}
    keywords |= {name: st.dictionaries(st.sampled_from("ab"), inner, max_size=2) for name in MAPS}
    values = {
        "const": st.booleans(),
        "default": st.booleans(),
        "enum": st.lists(st.booleans(), min_size=1, unique=True),
    }
    return st.fixed_dictionaries({}, optional={**keywords, **values}).map(lambda schema: {**schema})


schemas = st.recursive(st.booleans(), with_parts, max_leaves=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(schemas, values)
def test_a_schema_without_booleans_takes_what_it_took_before(schema: Any, value: Any) -> None:
    before = copy.deepcopy(schema)
    changed = without_booleans(schema)
    assert schema == before
    assert Draft202012Validator(changed).is_valid(value) == Draft202012Validator(schema).is_valid(value)
    for _, part in schemas_inside(changed):
        subschemas = [part[key] for key in ONE if key in part]
        subschemas += [item for key in LISTS for item in part.get(key, ())]
        subschemas += [item for key in MAPS for item in part.get(key, {}).values()]
        assert all(isinstance(item, dict) for item in subschemas)


@pytest.mark.parametrize("word", [True, False])
def test_what_is_not_a_schema_keeps_its_booleans(word: bool) -> None:
    schema = {"type": "object", "additionalProperties": word, "default": {"items": word}, "enum": [word], "const": word}
    assert without_booleans(schema) == schema
    assert without_booleans({"items": [word], "dependencies": {"a": word, "b": ["c"]}}) == {
        "items": [{} if word else {"not": {}}],
        "dependencies": {"a": {} if word else {"not": {}}, "b": ["c"]},
    }


def test_a_schema_of_any_depth_is_taken() -> None:
    schema: Any = True
    for _ in range(100_000):
        schema = {"items": schema}
    assert without_booleans(schema)["items"]["items"] is not None
    while isinstance(schema, dict):  # freed level by level: Python's own way would recurse
        schema = schema.pop("items")


def test_a_contract_shows_no_boolean_schema_and_checks_by_it_all_the_same() -> None:
    contract = one(type="object", keywords={"properties": {"raw": True, "gone": False}})
    assert input_schema(contract)["properties"]["x"]["properties"] == {"raw": {}, "gone": {"not": {}}}
    assert validate_arguments(contract, {"x": {"raw": [1]}}) == {"x": {"raw": [1]}}
    with pytest.raises(ArgumentError) as caught:
        validate_arguments(contract, {"x": {"gone": 1}})
    assert caught.value.problems == ('"x.gone" is 1, and is not allowed there',)
    output = tool(output="json", output_schema={"type": "object", "properties": {"gone": False}})
    assert check_output(output, {"gone": 1}) == ["the output at gone is 1, and is not allowed there"]
