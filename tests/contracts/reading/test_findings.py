"""Each fault is reported once, at its place, and with what to write instead."""

import json
import time
from pathlib import Path

import pytest

from praxis_mcp.contracts.reading.findings import MOST_FINDINGS
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.values import artifact_directory
from tests.contracts.schemas.test_schema import refused, tool

HEAD = "name: t\ndescription: d\nimage: x\ncommand: [x]\n"


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        ("parameters: {p: {type: array, items: [{type: string}, {}]}}", "parameters.p.items", "prefixItems"),
        ("parameters: {p: {properties: {q: {items: [{}]}}}}", "parameters.p.properties.q.items", "prefixItems"),
        ("parameters: {p: {allOf: [{not: {items: 5}}]}}", "parameters.p.allOf[0].not.items", "json-schema.org"),
        (
            "parameters: {p: {type: integer, exclusiveMinimum: true}}",
            "parameters.p.exclusiveMinimum",
            "minimum and true",
        ),
        ("parameters: {p: {properties: {q: {required: true}}}}", "parameters.p.properties.q.required", "[NAME]"),
        ("output: json\noutput_schema: {items: [{type: string}]}", "output_schema.items", "prefixItems"),
    ],
)
def test_one_fault_of_a_schema_is_one_finding(text: str, field: str, remedy: str) -> None:
    (finding,) = load_text(HEAD + text + "\n").diagnostics
    assert finding.field == field
    assert remedy in finding.remedy


def test_a_megabyte_of_faults_is_a_bounded_report_in_bounded_time() -> None:
    document = {"name": "t", "image": "x", "command": ["x"], **{f"comand{index}": 1 for index in range(50_000)}}
    begin = time.process_time()
    loaded = load_text(json.dumps(document), Path("contract.json"))
    assert time.process_time() - begin < 15
    assert loaded.contract is None
    assert len(loaded.diagnostics) == MOST_FINDINGS + 1
    assert any("the rest is left out" in finding.message for finding in loaded.diagnostics)


@pytest.mark.parametrize(
    ("patterns", "directory"),
    [
        (["/out/*.png", "/out/sub/**/*.txt"], "/out"),
        (["/out/sub/**/*.txt", "/out/*.png"], "/out"),
        (["/out/**"], "/out"),
        (["/a/b/*.x", "/a/b/c/d.txt"], "/a/b"),
        ([], None),
    ],
)
def test_artifacts_share_the_directory_that_holds_all_of_them(patterns: list[str], directory: str | None) -> None:
    loaded = load_text(HEAD + f"artifacts: {json.dumps(patterns)}\n")
    assert loaded.contract is not None
    assert artifact_directory(loaded.contract.artifacts) == directory


@pytest.mark.parametrize(
    "patterns", [["/out/*.png", "/other/*.txt"], ["/work/a/*", "/work/b/*"], ["/out/*", "/outer/*"]]
)
def test_artifacts_of_several_directories_are_refused_with_what_works(patterns: list[str]) -> None:
    (finding,) = load_text(HEAD + f"artifacts: {json.dumps(patterns)}\n").diagnostics
    assert finding.field == "artifacts"
    assert "/**" in finding.message


def seconds_to_load(document: dict[str, object]) -> float:
    begin = time.process_time()
    load_text(json.dumps(document), Path("contract.json"))
    return time.process_time() - begin


def many(count: int) -> dict[str, dict[str, object]]:
    """Contracts that a careless check would take quadratic time for."""
    base = {"name": "t", "description": "d", "image": "x", "command": ["x"]}
    names = [f"p{index}" for index in range(count)]
    schema = {"type": "object", "properties": {name: {} for name in names}, "required": names}
    return {
        "files among mounts": {
            **base,
            "mounts": {f"/a{index}": f"/m{index}" for index in range(count)},
            "parameters": {name: {"bind": {"file": f"/f/{name}"}} for name in names},
        },
        "required names": {**base, "parameters": schema},
        "required names that are not there": {**base, "parameters": {**schema, "required": [n + "x" for n in names]}},
        "references": {
            **base,
            "parameters": {
                **schema,
                "properties": {name: {"$ref": f"#/$defs/{name}"} for name in names},
                "$defs": schema["properties"],
            },
        },
    }  # fmt: skip


@pytest.mark.parametrize("name", many(1))
def test_four_times_as_much_takes_four_times_as_long(name: str) -> None:
    few, more = (min(seconds_to_load(many(count)[name]) for _ in range(2)) for count in (500, 2000))
    assert more < 10 * few + 0.5


def test_a_file_is_in_the_way_of_what_holds_it_or_is_below() -> None:
    mounts = "mounts: {./a: /m, ./b: /m/deep/er, ./c: /n-x, ./d: /o/p}\n"
    for path, clashes in [("/m", 1), ("/m/x", 1), ("/m/deep/er/x", 1), ("/o", 1), ("/n", 0), ("/n-xy", 0), ("/mm", 0)]:
        loaded = load_text(f"{HEAD}{mounts}parameters: {{a: {{bind: {{file: {path}}}}}}}\n")
        assert len(loaded.diagnostics) == clashes, path


def test_a_hundred_thousand_unknown_arguments_are_refused_at_once() -> None:
    contract = tool(*({"name": f"parameter_{index}"} for index in range(50)))
    begin = time.process_time()
    problems = refused(contract, {f"argument_{index}": 1 for index in range(100_000)})
    assert time.process_time() - begin < 3
    assert len(problems) <= 40
