"""The schema that `praxis-mcp schema` prints takes every contract that loads, in whatever spelling: what an editor
marks red is wrong."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from praxis_mcp.contracts.reading.documents import DocumentError, read_document
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.schemas.format_schema import contract_format_schema

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = contract_format_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

BLOCKS = re.findall(r"^```(yaml|yaml older)\n(.*?)^```", (ROOT / "docs/contracts.md").read_text("utf-8"), re.S | re.M)
FILES = [
    path
    for folder in ("tools", "tests", "benchmarks")
    for ending in ("yaml", "yml", "json")
    for path in sorted((ROOT / folder).rglob(f"*contract.{ending}"))
]
ODD_SPELLINGS = {
    "all of ours": """
name: 12
title: null
description: 1.10
version: 3
engine: docker
image: x
command: [x]
timeout: "30"
cpu_limit: "1e1"
pids_limit: "5"
memory_limit: 1.5
network: NONE
warm: "Yes"
read_only: 0
user: 1000
env: {E1: 1, E2: yes, E3: {secret: S}}
env_passthrough: null
tags: [1, yes, a]
x-more: {}
annotations: {read_only: "on", destructive: null}
parameters:
  - {name: 1, type: INT, required: "no"}
  - {name: b, type: [Str, null], default: null, bind: null, min_length: 1}
  - {name: c, bind: {kind: flag, target: --c, repeat: "false"}}
  - {name: d, bind: {env: null}}
  - {name: e, type: "null"}
examples: [{arguments: null, name: 1, expect: 2, expect_exit: "1"}, {}]
""",
    "older": """
name: t
engineSpec: {image: x, command: [x], something: else, timeout: 5, x-a: b}
params:
  - {name: a, type: str, required: "true", comment: unknown}
  - {name: b, type: Dict}
examples: [{params: {a: 1}, expected_output: 5, expected: unknown}, {parameters: {}, expected_output_contains: a}]
annotations: {readonly: true}
comment: unknown
""",
    "older with a schema": """
name: t
engine: local
engine_spec: {command: [x], working_dir: ./a}
parameters: {type: object, properties: {a: true, b: {type: string}}, required: null, additionalProperties: true}
""",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_contract_of_this_project_is_valid(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert load_text(text, path).contract is not None
    VALIDATOR.validate(read_document(text).data)


@pytest.mark.parametrize("text", [text for _, text in BLOCKS])
def test_every_contract_of_the_document_is_valid(text: str) -> None:
    VALIDATOR.validate(read_document(text).data)


@pytest.mark.parametrize("name", ODD_SPELLINGS)
def test_what_the_reader_takes_besides_is_valid(name: str) -> None:
    loaded = load_text(ODD_SPELLINGS[name])
    assert loaded.contract is not None, loaded.diagnostics
    VALIDATOR.validate(read_document(ODD_SPELLINGS[name]).data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "t", "engineSpec": "image"},
        {"name": "t", "params": []},
        {"name": "t", "engineSpec": {"image": "x", "command": "echo"}},
        {"name": "t", "engineSpec": {"image": "x", "command": ["x"], "timeout": "soon"}},
        {"name": "t", "engine": "dokcer", "engineSpec": {"image": "x", "command": ["x"]}},
        {"name": "t", "engineSpec": {"image": "x", "command": ["x"]}, "params": [{"type": "str"}]},
        {"name": "t", "image": "x", "command": ["x"], "params": []},
        {"name": "t", "image": "x", "command": ["x"], "expected_output": 1},
    ],
)
def test_what_is_plainly_wrong_is_not(wrong: dict[str, Any]) -> None:
    assert load_text(json.dumps(wrong), Path("contract.json")).contract is None
    assert not VALIDATOR.is_valid(wrong)


def test_a_contract_whose_image_is_that_of_its_directory_is_valid() -> None:
    VALIDATOR.validate({"name": "t", "description": "Takes the rest from _defaults.yaml."})


def documents() -> list[dict[str, Any]]:
    texts = [
        *(path.read_text(encoding="utf-8") for path in FILES),
        *(text for _, text in BLOCKS),
        *ODD_SPELLINGS.values(),
    ]
    return [read_document(text).data for text in texts]


def places(value: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if keys:
        yield keys
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*keys, key))


CHANGES = [(document, keys) for document in documents() for keys in places(document)]
scalars = st.sampled_from(
    [None, True, False, 0, 1, 5, 1.5, -1, "", "x", "5", " 5 ", "yes", "True", "NULL", "/x", "--x", "$X", "stdin",
     "Integer", "none", "5m", "json", "object"]
)  # fmt: skip
values = scalars | st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["x", "secret", "type", "name", "bind", "env", "kind", "x-a"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


@given(st.data())
def test_whatever_loads_is_valid(data: st.DataObject) -> None:
    document, keys = data.draw(st.sampled_from(CHANGES))
    changed = holder = copy.deepcopy(document)
    for key in keys[:-1]:
        holder = holder[key]  # type: ignore[index]
    holder[keys[-1]] = data.draw(values)  # type: ignore[index]
    text = json.dumps(changed)
    for path in (Path("contract.json"), Path("contract.yaml")):
        if load_text(text, path).contract is not None:
            try:
                VALIDATOR.validate(read_document(text, is_json=path.suffix == ".json").data)
            except DocumentError:
                raise AssertionError("it was read a moment ago") from None


@pytest.mark.parametrize("key", ["timeout", "cpu_limit", "pids_limit", "max_concurrency"])
def test_a_boolean_is_not_a_number(key: str) -> None:
    document = {"name": "t", "image": "x", "command": ["x"], key: True}
    loaded = load_text(json.dumps(document), Path("contract.json"))
    assert [item.field for item in loaded.diagnostics if item.is_error] == [key]
    assert not VALIDATOR.is_valid(document)


def test_a_binding_to_stdin_takes_true_only() -> None:
    document = {"name": "t", "image": "x", "command": ["x"], "parameters": {"a": {"bind": {"stdin": False}}}}
    assert load_text(json.dumps(document), Path("contract.json")).contract is None
    assert not VALIDATOR.is_valid(document)
