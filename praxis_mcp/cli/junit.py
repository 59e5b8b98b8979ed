"""The outcomes of examples as JUnit XML, as GitHub's and GitLab's and Jenkins' readers take it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.errors import ArgumentError
from praxis_mcp.execution.result_checks import ExampleOutcome

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no document may hold, not even as a reference (XML 1.0, 2.2)."""
_SUMMARY = 200
"""Characters of the line that a report shows before it is opened."""


@dataclass(frozen=True, slots=True)
class _Case:
    classname: str
    name: str
    file: str
    seconds: float
    kind: str = ""
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        about = (
            f"    <testcase classname={_quoted(self.classname)} name={_quoted(self.name)} "
            f'time="{self.seconds:.3f}" file={_quoted(self.file)}'
        )
        if not self.kind:
            return about + "/>"
        first = self.problems[0].split("\n")[0][:_SUMMARY]
        if self.kind == "skipped":
            return f"{about}><skipped message={_quoted(first)}/></testcase>"
        text = escape(_valid("\n".join(self.problems)))
        return f"{about}>\n      <{self.kind} message={_quoted(first)}>{text}</{self.kind}>\n    </testcase>"


def junit_report(
    outcomes: Sequence[ExampleOutcome],
    findings: Iterable[Diagnostic] = (),
    untested: Iterable[str] = (),
    files: Mapping[str, Path] | None = None,
) -> str:
    """A suite for each tool, and one for contracts that are broken, so that a report fails where the run does.

    Args:
        outcomes: in the order in which they ran.
        findings: what is wrong with contracts; warnings are left out.
        untested: tools without examples that are run, which count as skipped.
        files: the contracts, by tool; relative ones where a report is to link to them.
    """
    files = files or {}
    suites: dict[str, list[_Case]] = {}
    for outcome in outcomes:
        kind = "" if outcome.passed else "error" if outcome.is_error else "failure"
        case = _Case(
            outcome.tool,
            outcome.example,
            str(files.get(outcome.tool, "")),
            outcome.seconds,
            kind,
            outcome.problems,
        )
        suites.setdefault(outcome.tool, []).append(case)
    for tool in untested:
        why = ("The contract has no examples that are run.",)
        nothing = _Case(tool, "examples", str(files.get(tool, "")), 0, "skipped", why)
        suites.setdefault(tool, []).append(nothing)
    for finding in findings:
        if finding.is_error:
            file = str(finding.path or "")
            case = _Case("contracts", file or "contract", file, 0, "error", (str(finding),))
            suites.setdefault("contracts", []).append(case)
    parts = [_suite(name, cases) for name, cases in suites.items()]
    every = [case for cases in suites.values() for case in cases]
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="praxis-mcp" {_sums(every)}>'
    return "\n".join((head, *parts, "</testsuites>\n"))


def write_junit(file: Path, report: str) -> None:
    """Write a report, into a directory that is made where it is missing.

    Raises:
        ArgumentError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report, encoding="utf-8")
    except OSError as exc:
        raise ArgumentError(
            f"The report {file} cannot be written: {exc.strerror}.", remedy="Name another file after --junit."
        ) from exc


def _suite(name: str, cases: Sequence[_Case]) -> str:
    listed = "\n".join(str(case) for case in cases)
    return f"  <testsuite name={_quoted(name)} {_sums(cases)}>\n{listed}\n  </testsuite>"


def _sums(cases: Sequence[_Case]) -> str:
    counts = {f"{kind}s": sum(case.kind == kind for case in cases) for kind in ("failure", "error")}
    skipped = sum(case.kind == "skipped" for case in cases)
    seconds = sum(case.seconds for case in cases)
    numbers = " ".join(f'{kind}="{number}"' for kind, number in counts.items())
    return f'tests="{len(cases)}" {numbers} skipped="{skipped}" time="{seconds:.3f}"'


def _valid(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _quoted(text: str) -> str:
    # Line ends and tabs would be read as blanks.
    return quoteattr(_valid(text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
