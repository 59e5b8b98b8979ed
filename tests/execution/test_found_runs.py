"""Runs that are found by what they have: by one column, or by several that seldom meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.execution.records import sql
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.execution.records.postgres import PostgresDatabase
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.execution.records.sqlite import SqliteDatabase
from praxis_mcp.execution.records.store import DATABASE
from tests.execution.test_record_store import row
from tests.kit.postgres import shared_server
from tests.kit.records import DATABASES, database_in, records_place

COLUMNS = ("tool", "engine", "outcome", "caller", "root")
COUNT = 97


def run(number: int) -> StoredRun:
    """One of many, of which several begin in the same second and each pair of columns has some in common."""
    values: dict[str, Any] = {
        name: str(number % divisor) for name, divisor in zip(COLUMNS, (2, 3, 4, 5, 7), strict=True)
    }
    return row(f"run{number:04}", float(number // 10), ended=1.0, **values)


def found_by(names: Sequence[str]) -> dict[str, Any]:
    return dict.fromkeys(names, "1")


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlDatabase]:
    with records_place(tmp_path, request.param) as place:
        place.mkdir()
        opened = database_in(place)
        opened.write(map(run, range(COUNT)))
        yield opened
        opened.close()


@pytest.mark.parametrize("names", [*combinations(COLUMNS, 2), COLUMNS], ids="-".join)
def test_runs_that_fit_in_several_ways_are_all_found_newest_first(
    database: SqlDatabase, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_ROWS_AT_ONCE", 2)  # page by page
    filters = Filters(since=1.0, until=9.0, **found_by(names))
    fits = [run(number) for number in range(COUNT) if all(getattr(run(number), name) == "1" for name in names)]
    wanted = [found.id for found in reversed(fits) if 1 <= found.started < 9]
    assert wanted or names == COLUMNS
    assert [found.id for found in database.select(filters)] == wanted
    assert [found.id for found in database.select(filters, 3)] == wanted[:3]


@pytest.mark.parametrize("names", [*combinations(COLUMNS, 2)], ids="-".join)
def test_sqlite_reads_one_index_for_columns_that_seldom_meet_and_not_the_rows(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """With a million runs, to read all rows of one column takes half a second and more."""
    plans: list[str] = []

    class Explained(SqliteDatabase):
        def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
            plans.extend(step[-1] for step in super().read(f"EXPLAIN QUERY PLAN {statement}", values))
            return super().read(statement, values)

    database = Explained(tmp_path / DATABASE)
    list(database.select(Filters(**found_by(names))))
    ((definition,),) = database.read("SELECT sql FROM sqlite_schema WHERE name = 'runs_by_time'")
    database.close()
    assert "SCAN runs USING INDEX runs_by_time" in plans
    assert set(names) <= set(definition.partition("(")[2].rstrip(")").split(", "))


@pytest.mark.postgres
@pytest.mark.parametrize("names", [*combinations(COLUMNS, 2)], ids="-".join)
def test_postgresql_reads_no_row_of_two_frequent_values_that_never_come_together(names: tuple[str, str]) -> None:
    """Of a million runs, the half of them took a second to read."""
    plans: list[str] = []

    class Explained(PostgresDatabase):
        def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
            plans.extend(step for (step,) in super().read(f"EXPLAIN ANALYZE {statement}", values))
            return super().read(statement, values)

    database = Explained(shared_server().database())
    try:
        database.write(row(f"run{n}", float(n), ended=1.0, **{names[n % 2]: "1"}) for n in range(2000))
        assert not list(database.select(Filters(**found_by(names))))
    finally:
        database.close()
    text = "\n".join(plans)
    assert "Index Cond" in text
    assert "Rows Removed by Filter" not in text
