"""SQLite's write-ahead log: it goes into the database aside of the commits, which answers wait for, and has a bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.sqlite import SqliteDatabase
from praxis_mcp.execution.records.store import DATABASE
from tests.execution.test_record_store import row
from tests.kit.until import until_blocking

MODULE = "praxis_mcp.execution.records.sqlite"
NEVER = 1_000_000


def _run(number: int) -> StoredRun:
    return row(f"run-number-{number}", number, ended=number, stdout=b"o" * 4000)


def test_what_is_in_the_log_goes_into_the_database_while_its_server_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.CHECKPOINT_AFTER", 3)
    database = SqliteDatabase(tmp_path / DATABASE)
    numbers = iter(range(NEVER))

    def is_there() -> bool:
        database.write([_run(next(numbers))])  # where one was not taken, because another wrote, the next is
        return b"run-number-0" in (tmp_path / DATABASE).read_bytes()

    until_blocking(is_there)
    database.close()


def test_a_commit_looks_after_a_log_that_nothing_else_has_kept_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.CHECKPOINT_AFTER", NEVER)
    monkeypatch.setattr(f"{MODULE}.MOST_PAGES_LOGGED", 50)
    database = SqliteDatabase(tmp_path / DATABASE)
    for number in range(100):
        database.write([_run(number)])
    log = (tmp_path / f"{DATABASE}-wal").stat().st_size
    database.close()
    assert log < 100 * 4096


def test_a_database_that_was_moved_away_is_not_made_again_by_what_looks_after_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.CHECKPOINT_AFTER", 1)
    database = SqliteDatabase(tmp_path / DATABASE)
    (tmp_path / DATABASE).rename(tmp_path / "moved")
    database.write([_run(0)])
    database.close()
    assert not (tmp_path / DATABASE).exists()
