"""Batches of records that go to PostgreSQL by libpq's pipeline: whole or not at all, whatever breaks them off."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records import pipeline
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.execution.records.postgres import ANSWER_TIMEOUT
from tests.execution.test_record_store import row, rows
from tests.kit.postgres import shared_server
from tests.kit.records import URLS, database_in, records_place

pytestmark = pytest.mark.postgres


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with records_place(tmp_path, "postgres") as place:
        yield place


def test_a_batch_that_the_database_refuses_is_undone_and_the_next_one_is_written(place: Path) -> None:
    database = database_in(place)
    called: list[int] = []
    for number in range(3):  # the first time nothing is prepared
        with pytest.raises(ValueError, match="22P02"):
            database.write(
                [row(f"run{number}", 1.0), row("bad", 1.0, stdout_bytes="none"), row("late", 1.0)],
                before=lambda number=number: called.append(number),
            )
        assert list(database.select(Filters())) == []
    database.write([row("run", 1.0), row("ended", 1.0, ended=2.0)], [("run", "stdout", b"\0\xff")])
    assert {run.id for run in database.select(Filters())} == {"run", "ended"}
    assert database.live_output("run", 0) == [(1, "stdout", b"\0\xff")]
    assert called == [0, 1, 2]
    database.close()


def test_nothing_is_seen_of_a_batch_before_the_trail_has_it(place: Path) -> None:
    database, other = database_in(place), database_in(place)

    def before() -> None:
        assert list(other.select(Filters())) == []

    database.write([row(f"run{number}", 1.0, ended=2.0) for number in range(3)], [("x", "stdout", b"x")], before)
    assert len(list(other.select(Filters()))) == 3

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.write([row("broken off", 1.0)], before=fail)
    assert len(list(other.select(Filters()))) == 3
    with pytest.raises(RecordsUnavailable):  # it is not known what a connection would say that was broken off
        database.write([row("run", 1.0)])
    other.close()


def test_a_trail_that_takes_long_to_write_is_not_taken_for_a_database_that_does_not_answer(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, late = database_in(place), 0.0

    class Clock:
        def monotonic(self) -> float:
            return time.monotonic() + late

    def before() -> None:
        nonlocal late
        late = 2 * ANSWER_TIMEOUT

    monkeypatch.setattr(pipeline, "time", Clock())
    database.write([row("run", 1.0)], before=before)
    assert [run.id for run in database.select(Filters())] == ["run"]
    database.close()


def test_a_batch_of_many_megabytes_is_written_at_once(place: Path) -> None:
    database = database_in(place)
    runs = [row(f"run{number}", 1.0, ended=2.0, stdout=os.urandom(60_000)) for number in range(300)]
    database.write(runs, [("run0", "stdout", b"x" * 8_000_000)])
    for run in runs[::50]:
        assert (found := database.find(run.id)) is not None
        assert found.stdout == run.stdout
    database.close()


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_connection_that_the_server_ends_is_an_error_and_nothing_is_half_written(place: Path, when: str) -> None:
    database = database_in(place)

    def end() -> None:
        ended = shared_server().sql(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'praxis-mcp'",
            URLS[place],
        )
        assert ended == [(True,)]

    if when == "before":
        end()
    with pytest.raises(RecordsUnavailable):
        database.write([row("one", 1.0), row("other", 1.0)], before=(lambda: None) if when == "before" else end)
    database.close()
    assert rows(place) == []


def test_a_batch_that_fails_only_when_it_is_committed_is_undone_and_the_next_one_is_written(place: Path) -> None:
    database = database_in(place)
    for statement in (
        "CREATE FUNCTION praxis_mcp.refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'too late' USING ERRCODE = '53100'; END $$",
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON praxis_mcp.runs DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW WHEN (NEW.tool = 'late') EXECUTE FUNCTION praxis_mcp.refuse()",
    ):
        shared_server().sql(statement, URLS[place])
    for number in range(3):
        with pytest.raises(RecordsUnavailable, match="too late"):
            database.write([row(f"good{number}", 1.0), row(f"late{number}", 1.0, tool="late")])
    database.close()
    assert rows(place) == []
    database = database_in(place)  # as the writer does after such an error
    database.write([row("run", 1.0)])
    database.close()
    assert [run.id for run in rows(place)] == ["run"]


def test_notices_and_notifications_are_not_taken_for_answers(place: Path) -> None:
    database = database_in(place)
    for statement in (
        "CREATE FUNCTION praxis_mcp.talk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE NOTICE 'one'; PERFORM set_config('application_name', NEW.id, false); "
        "PERFORM pg_notify('runs', NEW.id); RAISE WARNING 'two'; RETURN NEW; END $$",
        "CREATE TRIGGER talk BEFORE INSERT ON praxis_mcp.runs FOR EACH ROW EXECUTE FUNCTION praxis_mcp.talk()",
    ):
        shared_server().sql(statement, URLS[place])
    for number in range(3):
        database.write([row(f"{number}-{each}", 1.0, ended=2.0) for each in range(3)])
    assert len(list(database.select(Filters()))) == 9
    database.close()


def test_a_session_that_has_forgotten_what_was_prepared_is_an_error_and_a_fresh_one_writes(place: Path) -> None:
    """As behind a pooler that gives it to somebody else between two transactions."""
    database = database_in(place)
    database.write([row("before", 1.0)])
    with database.transaction() as run_sql:
        run_sql("DEALLOCATE ALL", ())
    with pytest.raises(RecordsUnavailable, match="does not exist"):
        database.write([row("one", 1.0), row("other", 1.0)])
    database.close()
    assert [run.id for run in rows(place)] == ["before"]
    database = database_in(place)
    database.write([row("one", 1.0), row("other", 1.0)])
    database.close()
    assert len(rows(place)) == 3


@pytest.mark.parametrize("text", ["half\ud800", "cut\0off"])
def test_a_text_that_the_database_cannot_hold_is_refused_and_never_cut(place: Path, text: str) -> None:
    database = database_in(place)
    with pytest.raises(ValueError, match=r"surrogates|NUL"):
        database.write([row("run", 1.0)], [("run", text, b"x")])
    assert list(database.select(Filters())) == []
    database.write([row("run", 1.0, error=text)])  # of a run's own, all that is storable is made so
    assert (found := database.find("run")) is not None
    assert found.error == text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
    database.close()
