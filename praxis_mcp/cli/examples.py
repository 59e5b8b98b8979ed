"""``praxis-mcp test``: the examples in contracts, run as tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import (
    JsonOption,
    SettingsOptions,
    print_error,
    print_findings,
    run_with_toolbox,
    takes_settings,
)
from praxis_mcp.cli.terminal import echo_json, say
from praxis_mcp.cli.tool_call import ToolsArgument, find_tool
from praxis_mcp.errors import ArgumentError

if TYPE_CHECKING:
    from praxis_mcp.contracts.catalog.catalog import CatalogEntry
    from praxis_mcp.diagnostics import Diagnostic
    from praxis_mcp.execution.result_checks import ExampleOutcome
    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.execution.watching import Touched

NOTHING_WRONG_ANY_MORE = "Nothing is wrong with the contracts any more."


@takes_settings()
def run_examples(
    options: SettingsOptions,
    names: ToolsArgument = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Stay, and run again the examples of each tool whose contract or files change."),
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", dir_okay=False, help="Write a report for CI there, as JUnit XML."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the examples in contracts as tests.

    Exit code 1 if one fails, if nothing ran, or, where no tools are named, if a contract is broken.

    Example: praxis-mcp test count_text --junit reports/tools.xml
    """
    if watch and (junit is not None or as_json):
        other = "--json" if as_json else "--junit"
        raise ArgumentError(f"--watch does not end, and {other} reports one run.", remedy="Leave one of them out.")
    settings = options.read()
    if watch:
        run_with_toolbox(settings, partial(_watch, names=names))
        return

    async def work(toolbox: Toolbox) -> _Run:
        entries = [await find_tool(toolbox, name) for name in names] if names else toolbox.catalog.entries()
        run = _Run(findings=() if names else toolbox.catalog.diagnostics)
        run.is_broken = print_findings(run.findings)
        await run.add(toolbox, entries, is_quiet=as_json)
        return run

    run = run_with_toolbox(settings, work)
    if as_json:
        echo_json([{**asdict(item), "passed": item.passed} for item in run.outcomes])
    else:
        run.say_sum()
    if junit is not None:
        from praxis_mcp.cli.junit import junit_report, write_junit

        write_junit(junit, junit_report(run.outcomes, run.findings, run.untested, run.files))
    if not run.outcomes:
        print_error("Nothing was tested.", _remedy(run))
    raise typer.Exit(1 if run.failed or run.is_broken or not run.outcomes else 0)


@dataclass(slots=True)
class _Run:
    """What has been tested.

    Attributes:
        findings: what is wrong with contracts, where all are tested.
        is_broken: whether any of that is an error.
        outcomes: of the examples, in the order in which they ran.
        untested: tools without examples that are run.
        files: contracts by tool, from the current directory where they are in it.
    """

    findings: Sequence[Diagnostic] = ()
    is_broken: bool = False
    outcomes: list[ExampleOutcome] = field(default_factory=list)
    untested: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many examples did not go as they say."""
        return sum(not outcome.passed for outcome in self.outcomes)

    async def add(self, toolbox: Toolbox, entries: Iterable[CatalogEntry], *, is_quiet: bool = False) -> None:
        """Run the examples of these tools, and print each outcome unless `is_quiet`."""
        from praxis_mcp.execution.result_checks import run_example, tests_of

        here = Path.cwd()
        for entry in entries:
            self.files[entry.name] = (
                entry.source.relative_to(here) if entry.source.is_relative_to(here) else entry.source
            )
            tests = tests_of(entry.contract)
            if not tests:
                say_untested(entry)
                self.untested.append(entry.name)
            for number in tests:
                outcome = await run_example(toolbox.runner, entry.contract, number)
                self.outcomes.append(outcome)
                if not is_quiet:
                    print_outcome(outcome)

    def say_sum(self) -> None:
        """Print how many passed and failed."""
        say(f"{len(self.outcomes) - self.failed} passed, {self.failed} failed")


def _remedy(run: _Run) -> str | None:
    """What to do about a run that tested nothing; None where errors that were printed say it."""
    if run.untested:
        return "Write examples: into a contract (docs/contracts.md)."
    return None if run.is_broken else "Write a tool with examples to begin with: praxis-mcp new NAME"


async def _watch(toolbox: Toolbox, names: list[str] | None) -> None:
    """Run the examples of these tools, or of all, and again what a change touches, until interrupted."""
    import anyio

    from praxis_mcp.cli.rerunning import Rerunner
    from praxis_mcp.execution.watching import ToolWatch
    from praxis_mcp.serving.lifetime import until_signalled

    for name in names or ():
        await find_tool(toolbox, name)
    watch, rerunner = ToolWatch(toolbox), Rerunner()
    left = {entry.name for entry in toolbox.catalog.entries() if not names or entry.name in names}

    shown: list[Diagnostic] = []

    def find() -> list[Diagnostic]:
        """What is wrong with the contracts of these tools, or with all."""
        if not names:
            return list(toolbox.catalog.diagnostics)
        files = {entry.source for entry in toolbox.catalog.entries() if entry.name in names}
        return [item for item in toolbox.catalog.diagnostics if item.path in files]

    async def test() -> None:
        nonlocal shown
        before, shown = shown, find()
        print_findings(shown)
        if before and not shown:
            say(NOTHING_WRONG_ANY_MORE, fg="green")
        run = _Run()
        for entry in toolbox.catalog.entries():
            if entry.name in left:
                await run.add(toolbox, [entry])
                left.discard(entry.name)
        if run.outcomes:
            run.say_sum()
        for path in watch.too_large:
            say(f"Changes in {path} are not noticed: it has too many files.", fg="yellow", err=True)
        say("Waiting for changes; Ctrl-C ends.", dim=True)

    async def changed(touched: Touched) -> None:
        tools = tuple(name for name in touched.tools if not names or name in names)
        # What was under way, and has not finished, is run as well.
        left.update(tools)
        removed = tuple(name for name in touched.removed if not names or name in names)
        if tools or removed or find() != shown:
            print_changes(replace(touched, tools=tools, removed=removed))
            rerunner.begin(test)

    async with until_signalled(), anyio.create_task_group() as tasks:
        await tasks.start(watch.run, changed)
        rerunner.begin(test)
        await rerunner.run()


def print_changes(touched: Touched) -> None:
    """Say what has changed."""
    parts = [
        ", ".join(touched.tools) + " changed" if touched.tools else "",
        *(f"{name} is gone" for name in touched.removed),
    ]
    say()
    say("; ".join(part for part in parts if part) or "contracts changed", bold=True)


def say_untested(entry: CatalogEntry, remedy: str = "") -> None:
    """Say that nothing tests a tool, and what can be done about it."""
    what = "no examples that are run" if entry.contract.examples else "no examples"
    say(f"{entry.name} has {what}{remedy and ': '}{remedy}", fg="yellow", err=True)


def print_outcome(outcome: ExampleOutcome) -> None:
    """Say how an example went."""
    say("✓ " if outcome.passed else "✗ ", fg="green" if outcome.passed else "red", nl=False)
    where = f" ({outcome.engine}, {outcome.seconds * 1000:.0f} ms)" if outcome.engine else ""
    say(f"{outcome.tool}: {outcome.example}{where}")
    for problem in outcome.problems:
        say(f"    {problem}")
