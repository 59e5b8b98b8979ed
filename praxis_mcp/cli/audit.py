"""``praxis-mcp audit``: who called what, and whether anybody has changed that since."""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import JsonOption, SettingsOptions, takes_settings
from praxis_mcp.cli.terminal import echo_json, say
from praxis_mcp.support.text import as_field, counted

if TYPE_CHECKING:
    from praxis_mcp.execution.records.row import StoredRun

app = typer.Typer(name="audit", no_args_is_help=True, help="The audit trail: a line for each call, chained by hashes.")

_KNOWN = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@app.command("verify")
@takes_settings(tools=False, root=False)
def verify(
    options: SettingsOptions,
    known: Annotated[
        str,
        typer.Option("--known", metavar="LINE:HASH", help="A line that was noted before, and must be there as it was."),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Look at every line: whether one was changed, removed or put in between.

    The newest recorded run has to be there. Prints the last line's number and hash. Note them elsewhere: with --known
    they show that the end was not cut off since. Exit code 1 where something has been tampered with; a piece of a line
    that a killed process left is only reported.

    Example: praxis-mcp audit verify
    """
    from praxis_mcp.execution.records import audit

    directory = _directory(options)
    noted = _read_known(known)
    run = _newest(options)  # before the trail is read: its line was appended before it was recorded
    found = audit.verify(directory, noted, run)
    if as_json:
        facts = {"lines": found.lines, "first": found.first, "last": found.last, "head": found.head}
        echo_json({**facts, "whole": found.is_whole, "torn": found.torn, "problems": found.problems})
    else:
        for problem in found.problems:
            say(problem, fg="red", err=True)
        for place in found.torn:
            say(f"{place}: a piece of a line that a killed process left", fg="yellow", err=True)
        if found.first > 1:
            say(f"lines before {found.first} are no longer kept", err=True)
        if not found.lines:
            say(_empty(directory), err=True)
        say(f"{counted(found.lines, 'line')}, {'whole' if found.is_whole else 'NOT whole'}; {found.last}:{found.head}")
    raise typer.Exit(0 if found.is_whole else 1)


@app.command("show")
@takes_settings(tools=False, root=False)
def show(
    options: SettingsOptions,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show the newest lines, oldest first.

    Example: praxis-mcp audit show
    """
    from praxis_mcp.execution.records import audit

    directory = _directory(options)
    lines = deque(audit.read(directory), limit)
    if not lines:
        say(f"{_empty(directory)} praxis-mcp call and serve write it, unless records.audit is false.", err=True)
    for line in lines:
        if as_json:
            sys.stdout.write(json.dumps(line) + "\n")
        else:
            words = (f"{name}={as_field(str(value))}" for name, value in line.items() if name not in _BRIEF and value)
            say(f"{line['seq']} {line.get('time')} {' '.join(words)}")


def _newest(options: SettingsOptions) -> StoredRun | None:
    """The newest run that has ended; None where no trail is kept, or the database cannot be read."""
    from praxis_mcp.errors import RecordsUnavailable
    from praxis_mcp.execution.outcomes import LOST
    from praxis_mcp.execution.records.archive import open_archive
    from praxis_mcp.execution.records.database import Filters
    from praxis_mcp.execution.records.store import place_name

    settings = options.read().records
    if not settings.audit:
        return None
    try:
        with open_archive(settings) as archive:
            if archive is None:
                return None
            # Of a database that several machines share, each has a trail of what it ran; and a run that was lost is in
            # that of the machine that found it.
            filters = Filters(kept_at=place_name(archive.directory)) if settings.url is not None else Filters()
            lost = LOST if settings.url is not None else ""
            runs = list(archive.runs(filters, _RUNS_CHECKED))
            return next((run for run in runs if run.ended is not None and run.outcome != lost), None)
    except RecordsUnavailable as exc:
        say(f"the newest run is not looked for in the trail: {exc}", fg="yellow", err=True)
        return None


_RUNS_CHECKED = 1000
_BRIEF = ("seq", "time", "prev", "server", "contract_sha256", "arguments")


def _directory(options: SettingsOptions) -> Path:
    from praxis_mcp.errors import SettingsError

    place = options.read().records.place
    if place is None:
        raise SettingsError("There is no home directory to keep records in.", remedy="Name records.directory.")
    return place


def _empty(directory: Path) -> str:
    return f"There is no line of an audit trail in {directory}."


def _read_known(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    if (found := _KNOWN.fullmatch(text)) is None:
        from praxis_mcp.errors import ArgumentError

        raise ArgumentError(
            f"--known {text[:40]} is not a line's number and whole hash.",
            remedy="Write what `audit verify` printed: LINE:HASH, with all 64 digits.",
        )
    return int(found[1]), found[2]
