"""``praxis-mcp runs``: what has been called, and how it ended."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from praxis_mcp.cli.common import JsonOption, SettingsOptions, make_directory, takes, takes_settings
from praxis_mcp.cli.terminal import console, echo_json, escape, phases_in_words, say, shown_on_terminal, table
from praxis_mcp.execution.outcomes import OUTCOMES, RecordedOutcome
from praxis_mcp.support.text import counted, printable

if TYPE_CHECKING:
    from praxis_mcp.execution.records.archive import RunArchive
    from praxis_mcp.execution.records.database import Filters
    from praxis_mcp.execution.records.row import StoredRun

app = typer.Typer(name="runs", no_args_is_help=True, help="Calls that were recorded: what ran, for whom, how it ended.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_RECORDED_BY = "praxis-mcp call and serve record runs."
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, its beginning, or: last.")]


@dataclass(frozen=True, slots=True)
class Described:
    """The options that describe runs; empty and None leave it open."""

    tool: Annotated[str, typer.Option("--of", metavar="TOOL", help="Runs of this tool.")] = ""
    engine: Annotated[str, typer.Option("--engine", help="Runs on this engine.")] = ""
    outcome: Annotated[
        RecordedOutcome | None,
        typer.Option("--outcome", metavar="OUTCOME", help=f"{', '.join(OUTCOMES[:-1])} or {OUTCOMES[-1]}."),
    ] = None
    caller: Annotated[str, typer.Option("--caller", help="Runs of this caller: the name of a token.")] = ""
    since: Annotated[
        str, typer.Option("--since", help="Runs that began since: 15m, 2h, 3d, 1w ago, or a date (2026-11-28T09:30).")
    ] = ""
    until: Annotated[str, typer.Option("--until", help="Runs that began before: as --since.")] = ""

    def __bool__(self) -> bool:
        return any(astuple(self))

    def filters(self) -> Filters:
        """Raises ArgumentError for what is not a time."""
        from praxis_mcp.execution.records.database import Filters

        since, until = _time(self.since, "--since"), _time(self.until, "--until")
        return Filters(self.tool, self.engine, self.outcome or "", self.caller, since, until)


@app.command("list")
@takes_settings(tools=False, root=False)
@takes("described", Described)
def list_runs(
    options: SettingsOptions,
    described: Described,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first.

    Example: praxis-mcp runs list --of word_counter --outcome failed
    """
    filters = described.filters()
    with _archive(options) as (archive, place):
        runs = list(archive.runs(filters, limit)) if archive is not None else []
    if as_json:
        echo_json([run.as_json() for run in runs])
    elif runs:
        console().print(_table(runs))
    else:
        say("No such run is recorded." if described else f"{_none_in(place)} {_RECORDED_BY}", err=True)


@app.command("show")
@takes_settings(tools=False, root=False)
def show(options: SettingsOptions, run: RunArgument, as_json: JsonOption = False) -> None:
    """Show all that is recorded of a run; `runs logs` has what it wrote.

    Example: praxis-mcp runs show last
    """
    with _found(options, run) as (_, found):
        facts = found.as_json()
    if as_json:
        echo_json(facts)
        return
    for name, value in facts.items():
        for number, line in enumerate(_in_words(name, value)):
            say(f"{'' if number else name + ':':<17}{line}")


@app.command("logs")
@takes_settings(tools=False, root=False)
def logs(
    options: SettingsOptions,
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    stream: Annotated[Literal["stdout", "stderr"] | None, typer.Option("--stream", help="Only this stream.")] = None,
) -> None:
    """Print what a run wrote, standard error on standard error.

    Of a run that goes on, and of one whose server died, it is what has been written down so far: twice a second, 8 MiB
    at most.

    Example: praxis-mcp runs logs -f last
    """
    with _found(options, run) as (archive, found):
        if not archive.is_here(found) and None in (found.stdout, found.stderr) and found.ended is not None:
            say(f"longer output is kept at {found.kept_at}", err=True)
        pieces = archive.follow(found.id) if follow else archive.output(found)
        # A character may be half in one piece and half in the next.
        for name, parts in groupby(pieces, key=itemgetter(0)):
            if stream is None or name == stream:
                out = sys.stdout if name == "stdout" else sys.stderr
                written = (data for _, data in parts)
                for piece in shown_on_terminal(written) if out.isatty() else written:
                    out.buffer.write(piece)
                    out.flush()


@app.command("artifacts")
@takes_settings(tools=False, root=False)
def artifacts(
    options: SettingsOptions,
    run: RunArgument,
    directory: Annotated[
        Path | None, typer.Option("--to", file_okay=False, help="Directory to copy them to; made where there is none.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the files that a run left as results, or copy them.

    Example: praxis-mcp runs artifacts last --to out
    """
    with _found(options, run) as (archive, found):
        files, is_here = archive.artifacts(found), archive.is_here(found)
        if directory is not None:
            from praxis_mcp.engines.artifacts import copy_artifacts

            make_directory(directory, "--to")
            copy_artifacts(files, directory)
    if as_json:
        echo_json([{"name": item.name, "size": item.size, "file": str(item.file)} for item in files])
        return
    for item in files:
        say(f"{item.size:>12}  {printable(item.name)}")
    gone = len(found.as_json()["artifacts"]) - len(files)
    if not files and not gone:
        say("The run left no files as results.", err=True)
    if gone:
        where = "no longer kept" if is_here else f"kept at {found.kept_at}"
        say(f"{counted(gone, 'file')} {where}", err=True)


@app.command("diff")
@takes_settings(tools=False, root=False)
def diff(options: SettingsOptions, run: RunArgument, as_json: JsonOption = False) -> None:
    """Show what a run changed in its writable mounts: the content of short text files before and after, hashes and
    sizes of others.

    What else was written there while it ran is shown, too. `records.changes` in the settings says how much is kept.

    Example: praxis-mcp runs diff last
    """
    from praxis_mcp.cli.run_changes import changes_as_json, print_changes
    from praxis_mcp.errors import RecordsUnavailable
    from praxis_mcp.execution.records.changes import changes_of

    with _found(options, run) as (_, found):
        try:
            changes = changes_of(found)
        except ValueError as exc:
            raise RecordsUnavailable(f"Run {found.id[:12]}: {exc}.") from exc
    if as_json:
        echo_json(changes_as_json(changes))
    elif changes:
        print_changes(changes)
    else:
        say("The run changed no files in writable mounts.", err=True)


@app.command("rm")
@takes_settings(tools=False, root=False)
@takes("described", Described)
def remove(
    options: SettingsOptions,
    described: Described,
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN…", help="Ids of runs, or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run that has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove runs that have ended, with their files: those that are named, or those that the options describe.

    Example: praxis-mcp runs rm --until 30d
    """
    from praxis_mcp.errors import ArgumentError

    filters = described.filters()
    if sum((bool(runs), bool(described), everything)) != 1:
        raise ArgumentError("Write which runs: their ids, or options such as --of and --until, or --all.")
    going_on = 0
    with _archive(options) as (archive, _):
        if archive is None:
            count = 0
        elif runs:
            named = [archive.find(name) for name in runs]
            going_on = sum(run.ended is None for run in named)
            count = archive.remove(named)
        else:
            count = archive.remove(archive.runs(filters))
    if as_json:
        echo_json({"removed": count})
    else:
        say(f"{counted(count, 'run')} removed")
    if going_on:
        say(f"{counted(going_on, 'run')} still running: only what has ended can be removed", err=True)
        raise typer.Exit(1)


@app.command("export")
@takes_settings(tools=False, root=False)
@takes("described", Described)
def export(
    options: SettingsOptions,
    described: Described,
) -> None:
    """Print runs as JSON, one a line, newest first: all of them, or those that the options describe.

    What they wrote is not in it: `runs logs` prints that.

    Example: praxis-mcp runs export --since 1d > runs.jsonl
    """
    filters = described.filters()
    with _archive(options) as (archive, _):
        for run in archive.runs(filters) if archive is not None else ():
            sys.stdout.write(json.dumps(run.as_json()) + "\n")


@contextmanager
def _archive(options: SettingsOptions) -> Iterator[tuple[RunArchive | None, Path | None]]:
    from praxis_mcp.execution.records.archive import open_archive

    settings = options.read().records
    with open_archive(settings) as archive:
        yield archive, settings.place


@contextmanager
def _found(options: SettingsOptions, name: str) -> Iterator[tuple[RunArchive, StoredRun]]:
    from praxis_mcp.errors import RunNotFoundError

    with _archive(options) as (archive, place):
        if archive is None:
            raise RunNotFoundError(_none_in(place), remedy=_RECORDED_BY)
        yield archive, archive.find(name)


def _in_words(name: str, value: Any) -> list[str]:
    """What `runs show` says of a fact, a line for each part; nothing where there is none."""
    if value in (None, "", [], {}):
        return []
    if name == "phases":
        return [phases_in_words(value)]
    if name == "passed_over":
        return [f"{item['engine']}: {item['reason']}" for item in value]
    if name == "artifacts":
        return [f"{printable(item['name'])}, {counted(item['size'], 'byte')}" for item in value]
    if name in ("changed_files", "damaged"):
        return [printable(path) for path in value]
    return [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]


def _none_in(place: Path | None) -> str:
    return f"No run is recorded in {place}." if place is not None else "No run is recorded yet."


def _time(text: str, option: str) -> float | None:
    if not text:
        return None
    if age := _AGE.fullmatch(text):
        return time.time() - float(age[1]) * _UNITS[age[2]]
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError as exc:
        from praxis_mcp.errors import ArgumentError

        raise ArgumentError(
            f"{option} {text[:40]} is not a time.",
            remedy="Write an age (15m, 2h, 3d, 1w) or a date (2026-11-28T09:30).",
        ) from exc


def _table(runs: list[StoredRun]) -> object:
    rows = table("run", "began", "tool", "engine", "outcome", "took", "caller", "client")
    for run in runs:
        began = datetime.fromtimestamp(run.started).strftime("%Y-%m-%d %H:%M:%S")
        took = "" if run.ended is None else _duration(run.ended - run.started)
        outcome = f"{run.outcome} {run.exit_code}" if run.outcome == "failed" else run.outcome
        names = (run.tool, run.engine, outcome, took, run.caller, run.client)
        rows.add_row(run.id[:12], began, *map(escape, names))
    return rows


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
