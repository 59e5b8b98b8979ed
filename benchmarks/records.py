"""What a record costs a call, in SQLite and in PostgreSQL, and how long runs are looked for among very many.

PostgreSQL is one of its own, from Debian's packages, which keeps things as safe as it does by default. How many runs
there are: ``PRAXIS_BENCH_RUNS`` (a million by default, which takes some minutes and 3 GB).
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path

from benchmarks.calls import calling, connected
from benchmarks.contracts import write_noops
from benchmarks.many_runs import BUSY, QUIET, RARE, SECONDS_APART, add_runs
from benchmarks.measure import Report, Work, in_turns
from benchmarks.startup import serving
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.execution.records.store import open_database
from praxis_mcp.settings.sections import RecordSettings
from tests.kit.postgres import programs, running_server

RUNS = int(os.environ.get("PRAXIS_BENCH_RUNS", "1000000"))
LISTED = 20
"""Runs that `runs list` shows by default."""
NONE = "no records"
_SAFE = "fsync = on\nfull_page_writes = on\nshared_buffers = 128MB\n"


async def measure(rounds: int) -> list[Report]:
    """One report of the cost, and one of the looks for each database; PostgreSQL where its programs are."""
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls: dict[str, str | None] = {"SQLite": None}
        postgres = stack.enter_context(running_server(_SAFE)) if programs() is not None else None
        if postgres is not None:
            urls["PostgreSQL"] = postgres.database()
        reports = [await _cost(place, urls, rounds * 5)]
        for name, url in urls.items():
            settings = RecordSettings.model_validate({"directory": place / name, "url": url})
            with closing(open_database(settings)) as database:
                began = add_runs(database, RUNS)  # in this thread: it is the one that has opened it
                if postgres is not None and url is not None:
                    postgres.sql("VACUUM ANALYZE praxis_mcp.runs", url)  # as autovacuum does before long
                works = {what: _looking(database, filters) for what, filters in _looks(began).items()}
                rows = await in_turns(works, rounds, against={})
            note = f"The {LISTED} newest of {RUNS:,} that fit, by the connection that a command opens; in process."
            reports.append(Report(f"Runs that are looked for, {name}", rows, note))
        return reports


async def _cost(place: Path, urls: dict[str, str | None], rounds: int) -> Report:
    async with AsyncExitStack() as stack:
        command = serving(write_noops(place / "tools", 1, network="host"))
        plain = {"PRAXIS_ENGINES__LOCAL__SANDBOX": "off"}
        off = {**plain, "PRAXIS_RECORDS__ENABLED": "false"}
        works = {NONE: calling(await stack.enter_async_context(connected(command, off)))}
        for name, url in urls.items():
            on = {**plain, "PRAXIS_RECORDS__DIRECTORY": str(place / name)}
            if url is not None:
                on["PRAXIS_RECORDS__URL"] = url
            works[f"with records and audit, {name}"] = calling(await stack.enter_async_context(connected(command, on)))
        rows = await in_turns(works, rounds, against=dict.fromkeys(works.keys() - {NONE}, NONE))
    note = "A whole tools/call over stdio of a local tool that does nothing, one at a time."
    return Report("What a record costs", rows, note)


def _looks(began: float) -> dict[str, Filters]:
    middle, end = began + RUNS * SECONDS_APART / 2, began + RUNS * SECONDS_APART
    return {
        "all": Filters(),
        "--of, of every second run": Filters(tool=BUSY),
        "--of, of one in 100,000": Filters(tool=RARE),
        "--of, of none": Filters(tool="nothing"),
        "--outcome failed": Filters(outcome="failed"),
        "--outcome running": Filters(outcome="running"),
        "--engine": Filters(engine="sandbox"),
        "--caller": Filters(caller="team1"),
        "--caller, of few": Filters(caller=QUIET),
        "--since": Filters(since=end - 3600),
        "--until": Filters(until=middle),
        "--of --outcome": Filters(tool=BUSY, outcome="timed_out"),
        "--of --engine, which never meet": Filters(tool=BUSY, engine="remote-mcp"),
        "--outcome --of, which never meet": Filters(tool=BUSY, outcome="failed"),
        "--engine --caller, which never meet": Filters(engine="docker", caller=QUIET),
    }


def _looking(database: SqlDatabase, filters: Filters) -> Work:
    async def work() -> float:
        began = time.perf_counter()
        for _ in database.select(filters, LISTED):
            pass
        return time.perf_counter() - began

    return work
