"""The report of `praxis-mcp test --junit`, read as CI reads it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import yaml

from praxis_mcp.cli.junit import junit_report
from praxis_mcp.diagnostics import Diagnostic, Severity
from praxis_mcp.execution.result_checks import ExampleOutcome
from tests.kit.command_line import praxis

EVIL = "a\x00b\x1b[31m\"<&>'\ud800\uffff\n\u2028é]]>"


def test_text_of_others_is_escaped_and_what_xml_cannot_hold_is_replaced() -> None:
    report = junit_report([ExampleOutcome(EVIL, EVIL, (EVIL, EVIL))], files={EVIL: Path("a\x01.yaml")})
    (case,) = ET.fromstring(report.encode()).iter("testcase")
    seen = "a�b�[31m\"<&>'��\n\u2028é]]>"
    assert (case.get("name"), case.get("classname"), case.get("file")) == (seen, seen, "a�.yaml")
    (failure,) = case
    assert failure.get("message") == seen.split("\n")[0]
    assert failure.text == f"{seen}\n{seen}"


def test_a_report_counts_failures_errors_and_skipped_ones_in_all_and_in_each_suite() -> None:
    report = junit_report(
        [
            ExampleOutcome("a", "good", (), "local", 1.25),
            ExampleOutcome("a", "bad", ("printed 'x', not 'y'",), "local", 0.5),
            ExampleOutcome("b", "refused", ("no engine",), is_error=True),
        ],
        [Diagnostic("Broken.", path=Path("c.yaml"), line=3), Diagnostic("Odd.", severity=Severity.WARNING)],
        ["d"],
    )
    root = ET.fromstring(report)
    counts = ("tests", "failures", "errors", "skipped", "time")
    assert [root.get(name) for name in counts] == ["5", "1", "2", "1", "1.750"]
    suites = {suite.get("name"): [suite.get(name) for name in counts] for suite in root}
    assert suites == {
        "a": ["2", "1", "0", "0", "1.750"],
        "b": ["1", "0", "1", "0", "0.000"],
        "d": ["1", "0", "0", "1", "0.000"],
        "contracts": ["1", "0", "1", "0", "0.000"],
    }
    assert "c.yaml:3: error: Broken." in report


def tool(name: str, expect: str) -> str:
    examples = [{"name": "Says it", "expect": expect}]
    return yaml.safe_dump(
        {"name": name, "description": "Say.", "engine": "local", "command": ["echo", name], "examples": examples}
    )


def test_a_run_writes_its_report_into_a_directory_that_is_made_and_fails_where_an_example_does(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/good.contract.yaml").write_text(tool("good", "good"))
    (tmp_path / "tools/bad.contract.yaml").write_text(tool("bad", "better"))
    (tmp_path / "tools/broken.contract.yaml").write_text("name: broken\n")
    done = praxis("test", "--junit", "out/report.xml", cwd=tmp_path)
    assert (done.returncode, "1 passed, 1 failed" in done.stdout) == (1, True)
    root = ET.parse(tmp_path / "out/report.xml").getroot()
    kinds = {case.get("classname"): [child.tag for child in case] for case in root.iter("testcase")}
    assert kinds == {"good": [], "bad": ["failure"], "contracts": ["error"]}
    assert {case.get("file") for case in root.iter("testcase")} >= {"tools/good.contract.yaml"}


def test_a_report_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/good.contract.yaml").write_text(tool("good", "good"))
    (tmp_path / "file").write_text("")
    done = praxis("test", "--junit", "file/report.xml", cwd=tmp_path)
    assert (done.returncode, "--junit" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_a_watch_writes_no_report(tmp_path: Path) -> None:
    for option in (("--junit", "report.xml"), ("--json",)):
        done = praxis("test", "--watch", *option, cwd=tmp_path)
        assert (done.returncode, f"--watch does not end, and {option[0]}" in done.stderr) == (2, True)
