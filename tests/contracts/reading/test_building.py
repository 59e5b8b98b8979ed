"""A contract that is built in code is checked as one that is loaded is."""

from __future__ import annotations

from typing import Any

import pytest

from praxis_mcp.contracts.model import EngineType, ToolContract, ToolParameter
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.specs import CommandSpec, DaggerEngineSpec, LocalEngineSpec, RemoteMCPEngineSpec
from praxis_mcp.errors import ContractError

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("parameters.n.default", {"parameters": {"n": {"type": "integer", "default": "many"}}}),
    ("parameters.n.type", {"parameters": {"n": {"type": "objekt"}}}),
    ("parameters.n.pattern", {"parameters": {"n": {"pattern": "("}}}),
    ("parameters.n.minimum", {"parameters": {"n": {"type": "integer", "minimum": "2"}}}),
    ("parameters.n.minumum", {"parameters": {"n": {"type": "integer", "minumum": 2}}}),
    ("parameters.b.bind", {"parameters": {"a": {"bind": "stdin"}, "b": {"bind": "stdin"}}}),
    ("parameters.a.bind", {"parameters": {"a": {"bind": {"env": "PATH"}}}}),
    ("output_schema.type", {"output": "json", "output_schema": {"type": "objekt"}}),
    ("output_schema", {"output": "json", "output_schema": {"$ref": "#/$defs/nowhere"}}),
    ("env.A", {"env": {"A": ["hidden-value"]}}),
    ("timeout", {"timeout": "soon"}),
    ("artifacts", {"artifacts": ["here/*.png"]}),
    ("name", {"name": "two words"}),
    ("nonsense", {"nonsense": 1}),
]


@pytest.mark.parametrize(("field", "fields"), WRONG, ids=[field for field, _ in WRONG])
def test_what_is_refused_in_a_file_is_refused_in_code_at_the_same_field(field: str, fields: dict[str, Any]) -> None:
    import json

    loaded = load_text(json.dumps({"name": "t", "image": "python", "command": ["x"], **fields}))
    assert field in {item.field for item in loaded.diagnostics if item.is_error}
    given = dict(fields)
    with pytest.raises(ContractError) as failure:
        ToolContract.create_dagger_tool(given.pop("name", "t"), "python", ["x"], **given)
    assert [item.field for item in failure.value.diagnostics] == [field]
    assert failure.value.diagnostics[0].remedy or field in ("name", "artifacts", "nonsense")
    assert f"{field}: " in str(failure.value)
    assert "hidden-value" not in repr(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__, "pydantic's error repeats values"


@pytest.mark.parametrize(
    ("field", "parameter"),
    [
        ("parameters.n.default", ToolParameter(name="n", type="integer", default="many")),
        ("parameters.n.minumum", ToolParameter(name="n", keywords={"minumum": 1})),
    ],
)
def test_parts_that_were_built_before_are_checked_too(field: str, parameter: ToolParameter) -> None:
    with pytest.raises(ContractError) as failure:
        ToolContract.create_local_tool("t", ["x"], parameters=[parameter])
    assert [item.field for item in failure.value.diagnostics] == [field]


def test_the_constructor_and_validation_check_as_the_shortcuts_do() -> None:
    fields = {"name": "t", "engine": "local", "engine_spec": {"command": []}}
    for make in (lambda: ToolContract(**fields), lambda: ToolContract.model_validate(fields)):
        with pytest.raises(ContractError, match=r'"t" cannot be used. command: '):
            make()


def test_an_engine_that_does_not_exist_is_all_that_is_said() -> None:
    with pytest.raises(ContractError, match='"lokal" is not an engine') as failure:
        ToolContract.model_validate({"name": "t", "engine": "lokal", "engine_spec": {"command": ["x"]}})
    assert [item.field for item in failure.value.diagnostics] == ["engine"]


def test_what_is_wrong_with_the_whole_is_a_contract_error_too() -> None:
    spec = {"command": ["x"], "env": {"KEY": "hidden-value"}}
    for fields, message in (
        ({"output_schema": {"type": "string"}}, "Output_schema goes with output: json"),
        ({"parameters": [ToolParameter(name="a"), ToolParameter(name="a")]}, 'Parameter "a" is declared twice'),
        ({"engine": "remote-mcp", "engine_spec": LocalEngineSpec(command=("x",))}, "Engine remote-mcp needs a "),
    ):
        with pytest.raises(ContractError, match=message) as failure:
            ToolContract.model_validate({"name": "t", "engine": "local", "engine_spec": spec, **fields})
        assert "hidden-value" not in str(failure.value)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("input_keywords", {"parameters": {"a": "string"}, "input_keywords": None}),
        ("input_keywords", {"parameters": {"a": "string"}, "input_keywords": ["allOf"]}),
        ("parameters", {"parameters": {1: "string"}}),
        ("parameters.a", {"parameters": {"a": {2: "x"}}}),
        ("parameters.a.anyOf.0", {"parameters": {"a": {"anyOf": [{None: {}}]}}}),
        ("engine_spec", {"engine_spec": None}),
        ("engine_spec", {"engine_spec": ["command"]}),
    ],
)
def test_what_no_file_could_hold_is_a_contract_error_at_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ContractError) as failure:
        ToolContract.model_validate({"name": "t", "engine": "local", "engine_spec": {"command": ["x"]}, **fields})
    assert [item.field for item in failure.value.diagnostics] == [field]


def test_a_message_shows_the_first_errors_and_the_diagnostics_all() -> None:
    names = "abcdefgh"
    parameters = {name: {"type": "integer", "default": "x"} for name in names}
    with pytest.raises(ContractError, match="There are 3 more errors") as failure:
        ToolContract.create_local_tool("t", ["x"], parameters=parameters)
    assert len(failure.value.diagnostics) == len(names)


def test_parameters_may_be_written_as_in_a_file() -> None:
    contract = ToolContract.create_local_tool(
        "t", ["x"], parameters={"who": {"type": "str", "minLength": 1}, "times": {"type": "integer", "default": 1}}
    )
    who, times = contract.parameters
    assert (who.type, who.required, who.keywords) == ("string", True, {"minLength": 1})
    assert (times.required, times.default) == (False, 1)
    assert contract.engine is EngineType.LOCAL


def test_what_would_only_be_a_warning_in_a_file_is_not_an_error() -> None:
    assert ToolContract.create_local_tool("t" * 70, ["x"]).description is None


@pytest.mark.parametrize("kind", [DaggerEngineSpec, CommandSpec])
def test_a_specification_is_given_as_the_type_that_the_caller_can_read(kind: type[CommandSpec]) -> None:
    made = ToolContract.create_dagger_tool("t", "busybox:1.36", ["true"], memory_limit="64m")
    assert made.get_typed_spec(kind) is made.get_typed_spec() is made.engine_spec
    for other in (LocalEngineSpec, RemoteMCPEngineSpec):
        with pytest.raises(ContractError, match=f"t has a DaggerEngineSpec .engine: dagger., not a {other.__name__}"):
            made.get_typed_spec(other)
