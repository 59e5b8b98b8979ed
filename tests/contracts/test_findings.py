"""Each fault is reported once, at its place, and with what to write instead."""

import json
import time
from pathlib import Path

import pytest

from praxis_mcp.contracts.findings import MOST_FINDINGS
from praxis_mcp.contracts.loading import load_text
from praxis_mcp.contracts.model import artifact_directory

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
