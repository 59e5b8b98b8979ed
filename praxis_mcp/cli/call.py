"""``praxis-mcp call``: the same path as an agent's call."""

from __future__ import annotations

import io
import re
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import (
    EXIT_ENGINE,
    JsonOption,
    SettingsOptions,
    make_directory,
    print_error,
    run_with_toolbox,
    takes_settings,
)
from praxis_mcp.cli.terminal import console, echo_json, escape, phases_in_words, say, shown_on_terminal
from praxis_mcp.cli.tool_call import ArgumentsOption, ToolArgument, WordsArgument, open_tool, read_arguments
from praxis_mcp.support.praxis_init import EXIT_CANNOT_RUN, EXIT_TIMED_OUT
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from praxis_mcp.contracts.model import ToolContract
    from praxis_mcp.engines.base import ExecutionResult, StatusListener
    from praxis_mcp.engines.output import StreamName
    from praxis_mcp.execution.records.record import RunRecord
    from praxis_mcp.execution.toolbox import Toolbox

_CLIENT = "praxis-mcp call"
"""What records call the program that called."""
_ARGUMENT_PIECE = 64 * 1024
_PERCENT = re.compile(r"(\d{1,3})\s?%")


@takes_settings()
def call(
    options: SettingsOptions,
    name: ToolArgument,
    words: WordsArgument = None,
    given: ArgumentsOption = None,
    artifacts: Annotated[
        Path | None,
        typer.Option(
            "--artifacts",
            file_okay=False,
            help="Directory to copy the files to that the tool leaves as results; made where there is none.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Call a tool, of a contract or of an upstream, as an agent would.

    Prints what the tool wrote, or, with --json, the whole result. Ends with the tool's own exit code, 124 where it ran
    into its timeout, 125 where an engine failed, and 2 where the call was refused, or its output is not what the
    contract declares.

    Example: praxis-mcp call word_counter text='one two' top=1
    """
    settings = options.read()
    if artifacts is not None:
        # Before the call: where that fails, the tool has not done its work in vain.
        make_directory(artifacts, "--artifacts")

    async def work(toolbox: Toolbox) -> int:
        from praxis_mcp.cli.traced import traced_call
        from praxis_mcp.contracts.catalog.catalog import CatalogEntry

        async with open_tool(toolbox, name) as tool:
            arguments = read_arguments(dict(tool.input_schema), words, given)
            async with traced_call() as failed:
                if isinstance(tool, CatalogEntry):
                    with _status() as on_status:
                        result = await toolbox.runner.call(name, arguments, client=_CLIENT, on_status=on_status)
                else:
                    result = await toolbox.relays.call(tool, arguments, client=_CLIENT)
                if not result.success:
                    failed("tool_error")
            if not isinstance(tool, CatalogEntry):
                _show(toolbox.records.get(result.run_id), result, as_json, artifacts)
                return _exit_code(result)
        contract = tool.contract
        trouble = _trouble(contract, result)
        _show(toolbox.records.get(result.run_id), result, as_json, artifacts, more_follows=trouble is not None)
        if trouble:
            print_error(*trouble)
        if result.success and contract.output == "json":
            from praxis_mcp.execution.result_checks import structured_output

            structured_output(contract, result)
        return _exit_code(result)

    raise typer.Exit(run_with_toolbox(settings, work, keep_records=True))


def _trouble(contract: ToolContract, result: ExecutionResult) -> tuple[str, str] | None:
    """What an agent learns of a run that failed, where the tool cannot have said it itself, or a hint is known."""
    if result.success:
        return None
    from praxis_mcp.serving.mcp.failures import failure_sentences

    headline, hint = failure_sentences(contract, result)
    code = result.exit_code
    # From there on it is a shell's or a signal's, not the command's own (POSIX, Shell Command Language 2.8.2).
    by_itself = code is not None and 0 < code < EXIT_CANNOT_RUN and not (result.timed_out or result.out_of_memory)
    return (headline, hint) if hint or not by_itself else None


def _show(
    record: RunRecord, result: ExecutionResult, as_json: bool, artifacts: Path | None, *, more_follows: bool = False
) -> None:
    if as_json:
        echo_json({**record.summary(), "stdout": result.stdout.text, "stderr": result.stderr.text})
    else:
        _copy(record, result, "stdout", end_line=sys.stdout.isatty())
        _copy(record, result, "stderr", end_line=sys.stderr.isatty() or more_follows)
        _footer(result)
    if artifacts is not None:
        from praxis_mcp.engines.artifacts import copy_artifacts

        copy_artifacts(result.artifacts, artifacts)


def _exit_code(result: ExecutionResult) -> int:
    if result.timed_out:
        return EXIT_TIMED_OUT
    return EXIT_ENGINE if result.exit_code is None else result.exit_code


@contextmanager
def _status() -> Iterator[StatusListener | None]:
    """Shows what the engine is busy with, and a bar where it says per cent, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("running", total=None)

        def show(text: str) -> None:
            percent = _PERCENT.search(text)
            progress.update(
                task,
                description=escape(text),
                total=100 if percent else None,
                completed=int(percent[1]) if percent else 0,
            )

        yield show


def _copy(record: RunRecord, result: ExecutionResult, stream: StreamName, *, end_line: bool) -> None:
    """Pass on what the tool wrote, whole: as it is to a file or a pipe, and to a terminal without what would steer
    it. With `end_line`, what comes next begins a line of its own."""
    captured = result.stdout if stream == "stdout" else result.stderr
    out = sys.stdout if stream == "stdout" else sys.stderr
    target = out.buffer
    file = record.path(stream)
    with file.open("rb") if file is not None else io.BytesIO(captured.data) as source:
        pieces = iter(partial(source.read, _ARGUMENT_PIECE), b"")
        for piece in shown_on_terminal(pieces) if out.isatty() else pieces:
            target.write(piece)
    if end_line and captured.data and not captured.data.endswith(b"\n"):
        target.write(b"\n")
    target.flush()


def _footer(result: ExecutionResult) -> None:
    if not sys.stderr.isatty():
        return
    from praxis_mcp.engines.outcomes import describe_end

    phases = phases_in_words(result.phases)
    say(f"{result.engine} ({result.isolation}) · {describe_end(result)} · {phases}", dim=True, err=True)
    for item in result.artifacts:
        size = counted(item.size, "byte")
        say(f"artifact {item.name}, {size} (--artifacts DIR keeps it)", dim=True, err=True)
    for name in result.artifacts_left_out:
        say(f"artifact {name} left out: too many, or too large", dim=True, err=True)
    for path in result.changed_files:
        say(f"changed {path}", dim=True, err=True)
