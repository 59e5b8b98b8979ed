"""``praxis-mcp dev``: what an author has written, tried at each change, and shown as an agent gets it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from praxis_mcp.cli.common import (
    SettingsOptions,
    print_error,
    print_findings,
    run_with_toolbox,
    say_where_contracts_go,
    takes_settings,
)
from praxis_mcp.cli.examples import NOTHING_WRONG_ANY_MORE, print_changes, print_outcome, say_untested
from praxis_mcp.cli.rerunning import Rerunner
from praxis_mcp.cli.terminal import say, status_printer
from praxis_mcp.cli.tool_call import read_arguments
from praxis_mcp.errors import ArgumentError, PraxisError
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from praxis_mcp.cli.keys import Keys
    from praxis_mcp.contracts.catalog.catalog import CatalogEntry
    from praxis_mcp.diagnostics import Diagnostic
    from praxis_mcp.engines.base import ExecutionResult
    from praxis_mcp.execution.result_checks import ExampleOutcome
    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.execution.watching import ToolWatch, Touched

_CLIENT = "praxis-mcp dev"
_KEYS = "r call again · a all examples · e other arguments · l list · q quit"
_SHOWN_LINES = 40
_MOST_CHARACTERS = 4000
"""Of each part of an answer that are shown."""
_MOST_ARGUMENTS = 200
"""Characters of a call's arguments that are shown."""


@takes_settings(directories=True)
def dev(options: SettingsOptions) -> None:
    """Try tools while you write them: at each change, run the examples of what it touches, and show the answer.

    Shown are what is wrong with contracts, how the examples went, and the answer as an MCP client gets it. On a
    terminal, keys call again, try other arguments, or run everything; elsewhere, lines are printed. It runs what stands
    in the contracts as soon as it is saved. Ctrl-C ends it.

    Example: praxis-mcp dev my-tools
    """
    settings = options.read()

    async def work(toolbox: Toolbox) -> None:
        import anyio

        from praxis_mcp.cli.keys import Keys, has_keys
        from praxis_mcp.execution.watching import ToolWatch
        from praxis_mcp.serving.lifetime import until_signalled

        bench = _Bench(toolbox, ToolWatch(toolbox), Keys() if has_keys() else None)
        async with until_signalled(), anyio.create_task_group() as tasks:
            await tasks.start(bench.watch.run, bench.changed)
            bench.start()
            tasks.start_soon(bench.rerunner.run)
            if bench.keys is not None:
                await bench.keys.run(bench.pressed)
                tasks.cancel_scope.cancel()

    run_with_toolbox(settings, work)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to be made: of an example of that number, from 0, or with arguments of one's own (None)."""

    tool: str
    arguments: dict[str, Any]
    number: int | None = None

    def __str__(self) -> str:
        text = json.dumps(self.arguments, ensure_ascii=False)
        return f"{self.tool} {text if len(text) <= _MOST_ARGUMENTS else text[:_MOST_ARGUMENTS] + '…'}"


@dataclass(slots=True)
class _Bench:
    """What is being tried.

    Attributes:
        toolbox, watch: what runs the tools, and what says that they have changed.
        keys: of the terminal, where there is one.
    """

    toolbox: Toolbox
    watch: ToolWatch
    keys: Keys | None
    rerunner: Rerunner = field(default_factory=Rerunner)
    _left: set[str] = field(default_factory=set)  # tools whose examples are to be run
    _call: _Call | None = None
    _calls_again: bool = False
    _findings: tuple[Diagnostic, ...] = ()
    _outcomes: dict[str, list[ExampleOutcome]] = field(default_factory=dict)

    def start(self) -> None:
        """Run everything for the first time."""
        entries = self.toolbox.catalog.entries()
        places = ", ".join(str(path) for path in self.toolbox.settings.tool_directories)
        say(f"{counted(len(entries), 'tool')} in {places}")
        if not entries and not self.toolbox.catalog.diagnostics:
            say_where_contracts_go(self.toolbox.settings)
        for path in self.watch.too_large:
            say(f"Changes in {path} are not noticed: it has too many files.", fg="yellow", err=True)
        self._begin_all()

    async def changed(self, touched: Touched) -> None:
        """Run what a change touches."""
        self._left.update(touched.tools)
        for name in touched.removed:
            self._left.discard(name)
            self._outcomes.pop(name, None)
        async with self.rerunner.paused():
            print_changes(touched)
        self.rerunner.begin(self._work)

    async def pressed(self, key: str) -> bool:
        """Do what a key means; False where it ends the command."""
        if key in ("q", "\x04"):
            return False
        if key in ("r", "\n", "\r"):
            self._calls_again = True
        elif key == "a":
            self._begin_all()
        elif key == "e":
            async with self.rerunner.paused():
                await self._edit()
        elif key == "l":
            async with self.rerunner.paused():
                self._list()
        # Whatever was under way goes on with what it has left.
        self.rerunner.begin(self._work)
        return True

    def _begin_all(self) -> None:
        self._left = {entry.name for entry in self.toolbox.catalog.entries()}
        self.rerunner.begin(self._work)

    async def _work(self) -> None:
        await self._say_findings()
        if self._calls_again and self._call is not None:
            await self._answer(self._call)
        self._calls_again = False
        if self._left:
            await self._test()
        say(_KEYS if self.keys is not None else "Waiting for changes; Ctrl-C ends.", dim=True)

    async def _test(self) -> None:
        """Run the examples of what is left; show the answer to the first that failed, or, of a single tool, to the
        first."""
        from praxis_mcp.execution.result_checks import judge_example, tests_of

        entries = [entry for entry in self.toolbox.catalog.entries() if entry.name in self._left]
        tried: list[tuple[_Call, CatalogEntry, ExecutionResult | PraxisError]] = []
        outcomes: list[ExampleOutcome] = []
        for entry in entries:
            self._outcomes[entry.name] = own = []
            for number, example in tests_of(entry.contract).items():
                call = _Call(entry.name, dict(example.arguments), number)
                answer, seconds = await self._try(call)
                own.append(judge_example(entry.contract, number, answer, seconds))
                print_outcome(own[-1])
                tried.append((call, entry, answer))
            if not own:
                how = "press e to give it arguments" if self.keys is not None else "write examples: into its contract"
                say_untested(entry, how)
            outcomes += own
            self._left.discard(entry.name)
        self._left.clear()
        failed = [index for index, outcome in enumerate(outcomes) if not outcome.passed]
        if outcomes:
            say(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed", fg="red" if failed else "green")
        if failed or (tried and len(entries) == 1):
            self._call = tried[failed[0] if failed else 0][0]
            await self._show(*tried[failed[0] if failed else 0])
        elif entries and (self._call is None or len(entries) == 1):
            self._call = _first_call(entries[0])

    async def _answer(self, call: _Call) -> None:
        """Call a tool, and show the answer."""
        try:
            entry = self.toolbox.catalog.get(call.tool)
        except PraxisError as exc:
            print_error(exc.message, exc.remedy)
            return
        answer, seconds = await self._try(call)
        if call.number is not None and call.number < len(entry.contract.examples):
            from praxis_mcp.execution.result_checks import judge_example

            print_outcome(judge_example(entry.contract, call.number, answer, seconds))
        await self._show(call, entry, answer)

    async def _try(self, call: _Call) -> tuple[ExecutionResult | PraxisError, float]:
        """Call a tool: the answer, and the seconds that it took."""
        on_status = status_printer(err=False)
        began = time.monotonic()
        answer: ExecutionResult | PraxisError
        try:
            answer = await self.toolbox.runner.call(call.tool, call.arguments, client=_CLIENT, on_status=on_status)
        except PraxisError as exc:
            answer = exc
        return answer, time.monotonic() - began

    async def _show(self, call: _Call, entry: CatalogEntry, answer: ExecutionResult | PraxisError) -> None:
        """Show what an MCP client gets."""
        from praxis_mcp.serving.mcp.results import preview

        say(f"{call}", bold=True)
        _say_answer(await preview(self.toolbox.settings, entry.contract, answer))

    async def _find(self) -> tuple[Diagnostic, ...]:
        from praxis_mcp.plans.planning import find_mount_warnings

        catalog, settings = self.toolbox.catalog, self.toolbox.settings
        here = [item for entry in catalog.entries() for item in await find_mount_warnings(entry.contract, settings)]
        return (*catalog.diagnostics, *here)

    async def _say_findings(self) -> None:
        """Say what is wrong that was not before."""
        before, self._findings = self._findings, await self._find()
        if before == self._findings:
            return
        print_findings([item for item in self._findings if item not in before])
        if before and not self._findings:
            say(NOTHING_WRONG_ANY_MORE, fg="green")
        elif stays := sum(item in before for item in self._findings):
            say(f"{counted(stays, 'finding')} as before" + (": l lists them" if self.keys else ""), fg="yellow")

    def _list(self) -> None:
        for entry in self.toolbox.catalog.entries():
            outcomes = self._outcomes.get(entry.name, [])
            failed = sum(not outcome.passed for outcome in outcomes)
            how = f"{len(outcomes) - failed} passed, {failed} failed" if outcomes else "not tested"
            names = " ".join(entry.input_schema.get("properties", {}))
            say(f"{entry.name} ({how}): {names or 'no arguments'}", fg="red" if failed else None)
        print_findings(self._findings)

    async def _edit(self) -> None:
        """Read another call from the terminal."""
        entries = self.toolbox.catalog.entries()
        if self.keys is None or not entries:
            return
        call = self._call or _first_call(entries[0])
        say(f"{call}", bold=True)
        entry = next((item for item in entries if item.name == call.tool), entries[0])
        for number, example in enumerate(entry.contract.examples, 1):
            say(f"  {number} {example.name or 'example'}: {_Call(call.tool, dict(example.arguments))}")
        say("Write KEY=VALUE…, a JSON object or the number of an example, after the name of another tool if you like.")
        line = await self.keys.read_line("> ")
        if not line:
            return
        try:
            self._call = read_call(line, entries, call)
        except PraxisError as exc:
            print_error(exc.message, exc.remedy)
        else:
            self._calls_again = True


def _first_call(entry: CatalogEntry) -> _Call:
    from praxis_mcp.execution.result_checks import tests_of

    number, example = next(iter(tests_of(entry.contract).items()), (None, None))
    return _Call(entry.name, dict(example.arguments) if example else {}, number)


def read_call(line: str, entries: Sequence[CatalogEntry], call: _Call) -> _Call:
    """The call that a line describes.

    Args:
        line: ``KEY=VALUE…``, which changes the arguments of `call`; a JSON object, or the number of an example, from 1,
            which replace them. The name of a tool may stand before it.
        entries: the tools.
        call: the last call.

    Raises:
        ArgumentError: it cannot be read.
    """
    first, _, rest = line.partition(" ")
    by_name = {entry.name: entry for entry in entries}
    if first in by_name:
        entry, line = by_name[first], rest.strip()
        if entry.name != call.tool:
            call = _first_call(entry)
        if not line:
            return call
    elif (found := by_name.get(call.tool)) is not None:
        entry = found
    else:
        raise ArgumentError(f"{call.tool} is gone.", remedy="Write the name of another tool first.")
    if line.isdecimal():
        examples = entry.contract.examples
        if not 1 <= int(line) <= len(examples):
            raise ArgumentError(f"{entry.name} has {counted(len(examples), 'example')}, and none is number {line}.")
        return _Call(entry.name, dict(examples[int(line) - 1].arguments), int(line) - 1)
    if line.startswith("{"):
        return _Call(entry.name, read_arguments(entry.input_schema, None, line))
    try:
        words = shlex.split(line)
    except ValueError as exc:
        raise ArgumentError(f"A quotation mark is not closed: {exc}.", remedy="Close it.") from exc
    return _Call(entry.name, {**call.arguments, **read_arguments(entry.input_schema, words, None)})


def _say_answer(parts: Mapping[str, Any]) -> None:
    """An answer by the parts that a client sees."""
    for block in parts.get("content", []):
        kind = block.get("type", "")
        text = block["text"] if kind == "text" else json.dumps(block, ensure_ascii=False)
        say(f"  content ({kind}):")
        _say_part(text)
    if "structuredContent" in parts:
        say("  structuredContent:")
        _say_part(json.dumps(parts["structuredContent"], indent=2, ensure_ascii=False))
    is_error = bool(parts.get("isError"))
    say(f"  isError: {json.dumps(is_error)}", fg="red" if is_error else None)


def _say_part(text: str) -> None:
    lines = text[:_MOST_CHARACTERS].split("\n")
    for line in lines[:_SHOWN_LINES]:
        say(f"    {line}")
    if len(text) > _MOST_CHARACTERS or len(lines) > _SHOWN_LINES:
        say(f"    … {counted(len(text), 'character')} in all", dim=True)
