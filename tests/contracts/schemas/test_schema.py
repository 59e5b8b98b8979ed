"""Parameters become one JSON Schema; arguments are read by it, or refused with sentences that a model can act on."""

import gc
import json
import subprocess
import sys
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.schemas import bounded_checks
from praxis_mcp.contracts.schemas.schema import check_output, input_schema, validate_arguments
from praxis_mcp.errors import ArgumentError, ContractError


def tool(*parameters: dict[str, Any], **contract: Any) -> ToolContract:
    return ToolContract.create_local_tool("t", ["true"], parameters=list(parameters), **contract)


def one(**parameter: Any) -> ToolContract:
    return tool({"name": "x", **parameter})


def refused(contract: ToolContract, arguments: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ArgumentError) as caught:
        validate_arguments(contract, arguments)
    assert caught.value.remedy
    return caught.value.problems


def test_a_tool_without_parameters_takes_an_empty_object_only() -> None:
    assert input_schema(tool()) == {"type": "object", "properties": {}, "additionalProperties": False}
    assert validate_arguments(tool(), {}) == {}
    assert refused(tool(), {"x": 1}) == ('"x" is unknown; this tool takes none',)


def test_required_names_stand_in_the_order_of_declaration() -> None:
    contract = tool({"name": "b", "required": True}, {"name": "a", "required": True}, {"name": "c"})
    assert input_schema(contract)["required"] == ["b", "a"]
    assert list(input_schema(contract)["properties"]) == ["b", "a", "c"]


def test_description_default_and_keywords_reach_the_schema() -> None:
    contract = one(type=("integer", "null"), description="How many.", default=None, keywords={"minimum": 1, "x-a": "b"})
    assert input_schema(contract)["properties"]["x"] == {
        "type": ["integer", "null"],
        "description": "How many.",
        "minimum": 1,
        "x-a": "b",
        "default": None,
    }


def test_keywords_at_the_root_cannot_unmake_the_object_schema() -> None:
    contract = tool(
        {"name": "x", "type": None, "keywords": {"$ref": "#/$defs/word"}},
        input_keywords={"$defs": {"word": {"type": "string", "minLength": 2}}, "type": "array", "properties": {}},
    )
    schema = input_schema(contract)
    assert schema["type"] == "object"
    assert list(schema["properties"]) == ["x"]
    assert validate_arguments(contract, {"x": "ab"}) == {"x": "ab"}
    assert refused(contract, {"x": "a"}) == ('"x" is "a", and must have at least 2 characters',)


def test_the_schema_is_built_once_a_contract_and_dies_with_it() -> None:
    contract = one()
    assert input_schema(contract) is input_schema(contract)
    gone = weakref.ref(contract)
    del contract
    gc.collect()
    assert gone() is None


def test_defaults_are_applied_and_never_shared_between_calls() -> None:
    contract = one(type="array", default=["a"])
    validate_arguments(contract, {})["x"].append("b")
    assert validate_arguments(contract, {}) == {"x": ["a"]}


@pytest.mark.parametrize(
    ("parameter", "given", "read"),
    [
        ({"type": "string"}, 5, "5"),
        ({"type": "string"}, 2.5, "2.5"),
        ({"type": "string"}, False, "false"),
        ({"type": ("string", "integer")}, 5, 5),
        ({"type": "integer"}, "5", 5),
        ({"type": "integer"}, "-5", -5),
        ({"type": "integer"}, 3.0, 3),
        ({"type": "integer"}, "3.0", 3),
        ({"type": "number"}, "2.5", 2.5),
        ({"type": "number"}, 3.0, 3.0),
        ({"type": "boolean"}, "true", True),
        ({"type": "array"}, '["a"]', ["a"]),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": ("integer", "null")}, "null", None),
        ({"type": ("integer", "string")}, "5", "5"),
        ({"type": None}, "5", "5"),
    ],
)
def test_a_value_that_can_be_meant_in_one_way_only_is_read_so(parameter: Any, given: Any, read: Any) -> None:
    result = validate_arguments(one(**parameter), {"x": given})["x"]
    assert result == read
    assert type(result) is type(read)


@pytest.mark.parametrize(
    ("parameter", "given", "problem"),
    [
        ({"type": "integer"}, "five", '"x" is "five", and must be a whole number'),
        ({"type": "integer"}, " 5_0", '"x" is " 5_0", and must be a whole number'),
        ({"type": "integer"}, 2.5, '"x" is 2.5, and must be a whole number'),
        ({"type": "integer"}, True, '"x" is true, and must be a whole number'),
        ({"type": "boolean"}, "yes", '"x" is "yes", and must be true or false'),
        ({"type": "boolean"}, 1, '"x" is 1, and must be true or false'),
        ({"type": "number"}, "NaN", '"x" is "NaN", and must be a number'),
        ({"type": "number"}, "1e999", '"x" is "1e999", and must be a number'),
        ({"type": "string"}, {"a": 1}, '"x" is an object with 1 property, and must be text'),
        ({"type": "string", "required": True}, None, '"x" is null, and must be text'),
        ({"type": ("integer", "null")}, "a" * 99, '"x" is text of 99 characters, and must be a whole number or null'),
        ({"keywords": {"enum": ["a", "b"]}}, "c", '"x" is "c", and must be one of "a", "b"'),
        ({"keywords": {"pattern": "^a$"}}, "b", '"x" is "b", and must match the pattern "^a$"'),
        ({"keywords": {"format": "date"}}, "1.2.24", '"x" is "1.2.24", and must be a valid date'),
        ({"keywords": {"format": "date-time"}}, "2024-13-01T00:00:00Z", "date-time"),
        ({"keywords": {"format": "uri"}}, "no uri", "must be a valid uri"),
        ({"keywords": {"format": "ipv4"}}, "300.1.1.1", "must be a valid ipv4"),
        ({"type": "integer", "keywords": {"maximum": 3}}, 4, '"x" is 4, and must be at most 3'),
        ({"keywords": {"not": {"pattern": "^a"}}}, "ab", '"x" is "ab", and must satisfy not: {"pattern": "^a"}'),
        (
            {"type": "array", "keywords": {"uniqueItems": True}},
            ["a", "a"],
            '"x" holds the same item twice, and must not',
        ),
        (
            {"type": "array", "keywords": {"contains": {"const": "a"}}},
            ["b"],
            '"x" is an array of 1 item, and must satisfy contains: {"const": "a"}',
        ),
        (
            {"type": "object", "keywords": {"dependentRequired": {"a": ["b", "c"]}}},
            {"a": 1, "b": 2},
            '"x.a" was given, and needs "x.c" with it',
        ),
        (
            {"type": "object", "keywords": {"properties": {"a": False}}},
            {"a": 1},
            '"x.a" is 1, and is not allowed there',
        ),
        ({"type": "string"}, {"a": 1, "b": 2}, '"x" is an object with 2 properties, and must be text'),
        ({"type": "string"}, {1, 2}, '"x" is not a JSON value'),
        ({"type": "number"}, float("inf"), '"x" holds a number that is not finite, or has too many digits'),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_is_allowed(parameter: Any, given: Any, problem: str) -> None:
    (told,) = refused(one(**parameter), {"x": given})
    assert problem in told


def test_null_for_an_optional_parameter_counts_as_not_given() -> None:
    assert validate_arguments(one(type="integer", default=3), {"x": None}) == {"x": 3}
    assert validate_arguments(one(type=("integer", "null"), default=3), {"x": None}) == {"x": None}


def test_an_unknown_argument_is_refused_with_the_name_that_was_meant() -> None:
    contract = tool({"name": "file_path"}, {"name": "mode"})
    assert refused(contract, {"filepath": "a"}) == ('"filepath" is unknown (did you mean "file_path"?)',)
    assert refused(contract, {"zzz": "a"}) == ('"zzz" is unknown; known are "file_path", "mode"',)
    inside = one(type="object", keywords={"properties": {"mode": {}}, "additionalProperties": False})
    assert refused(inside, {"x": {"zzz": 1, "mod": 2}}) == (
        '"zzz", "mod" (did you mean "mode"?) in "x" are unknown; known are "mode"',
    )


def test_arguments_that_go_together_are_named_as_such() -> None:
    contract = tool(
        {"name": "user"}, {"name": "password"}, input_keywords={"dependentRequired": {"user": ["password"]}}
    )
    assert refused(contract, {"user": "ada"}) == ('"user" was given, and needs "password" with it',)


def test_a_number_with_more_digits_than_python_prints_is_refused() -> None:
    assert refused(one(type="integer"), {"x": 10**5000}) == (
        '"x" holds a number that is not finite, or has too many digits',
    )


def test_every_problem_is_reported_at_once() -> None:
    contract = tool({"name": "a", "required": True}, {"name": "b", "type": "integer"})
    assert refused(contract, {"b": "x", "c": 1}) == (
        '"c" is unknown; known are "a", "b"',
        '"b" is "x", and must be a whole number',
        '"a" is required and was not given',
    )


def test_problems_inside_a_value_name_their_place() -> None:
    contract = one(
        type="array",
        keywords={
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
                "required": ["name"],
                "additionalProperties": False,
            }
        },
    )
    assert set(refused(contract, {"x": [{"name": 1}, {"nane": "a"}, {"name": "a", "size": "b"}]})) == {
        '"x[0].name" is 1, and must be text',
        '"x[1].nane" is unknown (did you mean "name"?)',
        '"x[1].name" is required and was not given',
        '"x[2].size" is "b", and must be a whole number or null',
    }


def test_the_closest_of_several_forms_is_explained() -> None:
    contract = one(type=None, keywords={"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}]})
    (told,) = refused(contract, {"x": ["a", 1]})
    assert told.endswith('in the closest, "x[1]" is 1, and must be text')


def test_a_password_is_never_repeated_in_a_problem() -> None:
    for keywords in ({"format": "password", "minLength": 20}, {"writeOnly": True, "pattern": "^z"}):
        (told,) = refused(one(keywords=keywords), {"x": "hunter2"})
        assert "hunter2" not in told


def test_a_million_wrong_items_do_not_make_a_million_sentences() -> None:
    contract = one(type="array", keywords={"items": {"type": "integer"}})
    assert len(refused(contract, {"x": ["a"] * 1_000_000})) <= 20


def test_a_value_nested_too_deeply_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert refused(one(type="array"), {"x": deep}) == ('"x" is nested too deeply',)
    defined = {"$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}}
    contract = tool({"name": "x", "type": None, "keywords": {"$ref": "#/$defs/n"}}, input_keywords=defined)
    some: Any = []
    for _ in range(500):
        some = [some]
    assert refused(contract, {"x": some}) == (
        "one of the arguments is nested too deeply, or holds a number too large, to be checked",
    )


IN_RUST = """
import sys
from praxis_mcp.contracts.schemas.validators import CheckFailed, compile_schema, find_errors

validator = compile_schema({"$ref": "#/$defs/n", "$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}}, "x")
value = []
for _ in range(500):
    value = [value]

def check():
    try:
        find_errors(validator, value, "x")
    except CheckFailed as exc:
        print(exc)

sys.settrace(lambda *_: None)
check()
"""


def test_a_value_nested_too_deeply_is_refused_where_a_debugger_looks_on() -> None:
    # The last call that the stack has room for may be one into Rust then, which panics, and writes so to stderr.
    done = subprocess.run([sys.executable, "-c", IN_RUST], capture_output=True, text=True, timeout=120, check=False)
    assert "is nested too deeply" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize("schema", [{"minimum": "three"}, {"pattern": "("}, {"type": "strng"}])
def test_a_contract_that_nothing_checked_with_an_invalid_schema_is_refused_as_such(schema: Any) -> None:
    parameter = ToolParameter(name="x", type=None, keywords=schema)
    contract = one().model_copy(update={"parameters": (parameter,)})  # pydantic validates no copies
    with pytest.raises(ContractError, match=r"input schema of t (is not a valid JSON Schema|cannot be used)"):
        validate_arguments(contract, {"x": 1})


def test_a_reference_is_never_fetched() -> None:
    contract = one(type=None, keywords={"$ref": "http://127.0.0.1:1/schema.json"})
    with pytest.raises(ContractError, match=r"http://127\.0\.0\.1:1/schema\.json"):
        validate_arguments(contract, {"x": 1})


def test_output_is_checked_against_its_schema() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    contract = tool(output="json", output_schema=schema)
    assert check_output(contract, {"n": 1}) == []
    assert check_output(contract, {"n": "a"}) == ['the output at n is "a", and must be a whole number']
    assert check_output(contract, {}) == ['"n" in the output is required and was not given']
    assert check_output(contract, []) == ["the output is an array of 0 items, and must be an object"]
    assert check_output(tool(), object()) == []


any_text = st.text(st.characters())  # lone surrogates too
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(any_text, children, max_size=3),
    max_leaves=8,
)
EVERY_KIND = tool(
    {"name": "s", "keywords": {"minLength": 1, "format": "date-time"}},
    {"name": "u", "keywords": {"format": "uri"}},
    {"name": "i", "type": "integer", "keywords": {"multipleOf": 3}},
    {"name": "n", "type": "number", "keywords": {"multipleOf": 0.1}},
    {"name": "b", "type": "boolean"},
    {"name": "a", "type": "array", "keywords": {"uniqueItems": True, "items": {"type": ["integer", "string"]}}},
    {"name": "o", "type": "object", "keywords": {"maxProperties": 1, "propertyNames": {"pattern": "^a"}}},
    {"name": "any", "type": None, "keywords": {"oneOf": [{"type": "integer"}, {"type": "number"}, {"type": "array"}]}},
    {"name": "q", "required": True},
)


@given(st.dictionaries(st.sampled_from(["s", "u", "i", "n", "b", "a", "o", "any", "q", "q"]) | any_text, json_values))
def test_any_arguments_are_valid_or_refused_in_sentences(arguments: dict[str, Any]) -> None:
    try:
        read = validate_arguments(EVERY_KIND, arguments)
    except ArgumentError as exc:
        problems = exc.problems
    else:
        json.dumps(read, allow_nan=False)
        Draft202012Validator(input_schema(EVERY_KIND)).validate(read)
        assert validate_arguments(EVERY_KIND, read) == read
        return
    assert problems
    assert all(problem.encode() and "\n" not in problem for problem in problems)


def test_the_server_can_start_without_the_validator_or_the_watcher() -> None:
    code = (
        "import sys, praxis_mcp.contracts.schemas.schema as s\n"
        "from praxis_mcp.contracts.model import ToolContract\n"
        "s.input_schema(ToolContract.create_local_tool('t', ['true']))\n"
        "print([name for name in ('jsonschema', 'referencing', 'watchfiles', 'rich', 'mcp') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout
    assert output.strip() == "[]"


class TestWhatStrangersSend:
    """Arguments are checked on the event loop: whatever they are, that ends soon."""

    def test_a_pattern_that_backtracking_would_try_for_hours_is_decided_at_once(self) -> None:
        contract = one(keywords={"pattern": "^(a+)+$"})
        assert "must match the pattern" in refused(contract, {"x": "a" * 100_000 + "!"})[0]
        assert validate_arguments(contract, {"x": "a" * 100_000})

    def test_patterns_of_names_are_matched_the_same_way(self) -> None:
        contract = one(
            type="object",
            keywords={"patternProperties": {"^(a+)+$": {"type": "integer"}}, "additionalProperties": False},
        )
        assert validate_arguments(contract, {"x": {"aa": 1}}) == {"x": {"aa": 1}}
        assert refused(contract, {"x": {"a" * 50 + "!": 1}})
        assert refused(contract, {"x": {"aa": "text"}})

    def test_a_pattern_matches_anywhere_and_its_end_is_the_end(self) -> None:
        assert validate_arguments(one(keywords={"pattern": "b"}), {"x": "abc"})
        assert refused(one(keywords={"pattern": "^b$"}), {"x": "b\n"})

    def test_a_text_too_long_for_its_pattern_is_refused(self) -> None:
        contract = one(keywords={"pattern": "^(a?){1000}b$"})
        assert "takes too long to be checked" in refused(contract, {"x": "a" * 100_000})[0]

    def test_many_distinct_objects_are_told_apart_at_once(self) -> None:
        contract = one(type="array", keywords={"uniqueItems": True})
        many = [{"number": number} for number in range(20_000)]
        assert validate_arguments(contract, {"x": many})
        assert "the same item twice" in refused(contract, {"x": [*many, {"number": 5.0}]})[0]
        assert validate_arguments(contract, {"x": [1, True, "1", [1], 1.5, {}, [], None, 10**30]})

    def test_alternatives_that_double_with_each_level_are_abandoned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounded_checks, "MOST_SECONDS", 0.05)
        tree = {"oneOf": [{"properties": {"left": {"$ref": "#/$defs/tree"}, "op": {"const": n}}} for n in (1, 2)]}
        contract = tool(
            {"name": "x", "type": None, "keywords": {"$ref": "#/$defs/tree"}}, input_keywords={"$defs": {"tree": tree}}
        )
        value: dict[str, Any] = {}
        for _ in range(60):
            value = {"left": value, "op": 1}
        assert "takes too long to be checked" in refused(contract, {"x": value})[0]
