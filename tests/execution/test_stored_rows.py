"""What rows of runs and tasks hold that is odd, or comes late, or at once; over both databases."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.errors import QueueFull, RunNotFoundError
from praxis_mcp.execution.records.database import Database, Filters
from praxis_mcp.execution.records.row import StoredRun, storable_name
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.execution.records.writer import RecordWriter
from praxis_mcp.execution.tasks.table import TaskBounds, TaskTable
from praxis_mcp.execution.tasks.task import WORKING, StoredTask
from tests.execution.test_record_store import opened, row, rows
from tests.kit.records import DATABASES, database_in, records_place, settings_of

pytestmark = pytest.mark.anyio
LONG = secrets.token_hex(3000)
"""Text that no compression makes fit into an index."""


@pytest.fixture(params=DATABASES)
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    with records_place(tmp_path, request.param) as place:
        place.mkdir()
        yield place


@pytest.fixture
def database(place: Path) -> Iterator[Database]:
    found = database_in(place)
    yield found
    found.close()


@pytest.mark.parametrize(
    "facts",
    [
        {"root": f"/{LONG}"},
        {"caller": LONG},
        {"tool": LONG, "engine": LONG, "outcome": LONG, "server": LONG},
        {"client": LONG * 100, "error": LONG},
        {"exit_code": 0xC0000005},
        {"exit_code": -(2**40)},
        {"stdout_bytes": 2**70, "kept_bytes": 2**63},
        {"error": "a\0b", "caller": "\0", "plan": '"\0"'},
        {"caller": "\udce9", "root": "/\ud800", "client": "\udfff\ud800"},
        {"arguments": "[" * 100_000},
        {"stdout": b"\0\xff", "stderr": bytes(range(256))},
    ],
    ids=lambda facts: "-".join(facts),
)
def test_no_record_is_lost_whatever_it_holds(database: Database, facts: dict[str, Any]) -> None:
    database.write([row("run", 1.0, ended=2.0, **facts)])
    found = database.find("run")
    assert found is not None
    assert found.as_json()["run_id"] == "run"
    for name in ("tool", "engine", "outcome", "caller", "root"):
        if name in facts:
            assert [run.id for run in database.select(Filters(**{name: facts[name]}))] == ["run"], name
    for name in facts.keys() & {"stdout", "stderr"}:
        assert getattr(found, name) == facts[name]


def test_numbers_that_are_too_large_become_the_nearest_one(database: Database) -> None:
    database.write([row("run", 1.0, ended=2.0, exit_code=0xC0000005, stdout_bytes=2**70)])
    found = database.find("run")
    assert found is not None
    assert (found.exit_code, found.stdout_bytes) == (2**31 - 1, 2**63 - 1)


@pytest.mark.parametrize("end", ["", "x", "é", "\ud800"])
def test_long_names_that_differ_are_told_apart(database: Database, end: str) -> None:
    one, other = LONG + end, f"{LONG}y"
    database.write([row("one", 1.0, ended=2.0, caller=one), row("other", 1.0, ended=2.0, caller=other)])
    assert [run.id for run in database.select(Filters(caller=one))] == ["one"]
    assert [run.id for run in database.select(Filters(caller=other))] == ["other"]
    assert storable_name(storable_name(one)) == storable_name(one)
    assert len(storable_name("é" * 3000).encode()) <= 2000


@pytest.mark.parametrize("name", ["\0", "\ud800", LONG, "' OR 1=1 --", "%"])
def test_a_name_that_no_run_has_is_looked_up_in_vain(database: Database, name: str) -> None:
    database.write([row("run", 1.0, ended=2.0)])
    assert database.find(name) is None
    assert database.find_ids(name, 5) == []
    assert database.live_output(name, 0) == []
    assert database.find("run") is not None, "and the connection still works"


async def test_a_client_learns_that_there_is_no_run_of_an_odd_name(place: Path) -> None:
    async with opened(place) as records:
        for name in ("\0", "\ud800", "x" * 100_000):
            with pytest.raises(RunNotFoundError):
                await records.find(name, "ada")


def test_the_beginning_of_a_run_that_comes_late_never_replaces_its_end(place: Path, database: Database) -> None:
    """A server whose connection broke has another; what it had sent by the first may be read after."""
    first = database_in(place)
    database.write([row("run", 1.0, ended=2.0, stdout=b"out", outcome="ok")])
    first.write([row("run", 1.0), row("another", 1.0)], [("run", "stdout", b"o"), ("another", "stdout", b"a")])
    first.write([row("run", 1.0)])
    first.close()
    found = database.find("run")
    assert found is not None
    assert (found.outcome, found.ended, found.stdout) == ("ok", 2.0, b"out")
    assert database.live_output("run", 0) == []
    assert [data for _, _, data in database.live_output("another", 0)] == [b"a"]


def test_a_run_that_was_taken_for_lost_goes_on_where_its_server_comes_back(database: Database) -> None:
    database.write([row("run", 1.0)])
    assert [run.outcome for run in database.close_runs_of("gone", 3.0)] == ["lost"]
    database.write([row("run", 1.0)], [("run", "stdout", b"more")])
    found = database.find("run")
    assert found is not None
    assert found.ended is None
    assert [data for _, _, data in database.live_output("run", 0)] == [b"more"]
    database.write([row("run", 1.0, ended=4.0)])
    assert [run.outcome for run in database.select(Filters())] == ["ok"]


def test_a_run_that_begins_while_those_of_its_server_are_closed_is_closed_with_its_line_or_not_at_all(
    place: Path, database: Database
) -> None:
    other = database_in(place)
    database.write([row("first", 1.0)])
    begun = threading.Thread(target=lambda: other.write([row("second", 1.0)]))

    def before(lost: list[StoredRun]) -> None:
        assert [run.id for run in lost] == ["first"]
        begun.start()  # in SQLite it waits for the end of this transaction, in PostgreSQL it does not
        begun.join(0.2)

    # A database belongs to one thread.
    if "Sqlite" in type(other).__name__:
        other.close()
        begun = threading.Thread(target=lambda: _write_apart(place, row("second", 1.0)))
    database.close_runs_of("gone", 3.0, before)
    begun.join(60)
    if "Sqlite" not in type(other).__name__:
        other.close()
    assert {run.id: run.outcome for run in database.select(Filters())} == {"first": "lost", "second": "running"}


def _write_apart(place: Path, run: StoredRun) -> None:
    database = database_in(place)
    database.write([run])
    database.close()


def test_many_runs_are_removed_at_once(database: Database) -> None:
    many = [f"run{number}" for number in range(1201)]
    database.write([row(name, 1.0, ended=2.0) for name in many], [])
    began = time.process_time()
    database.remove(many[1:])
    assert [run.id for run in database.select(Filters())] == many[:1]
    assert time.process_time() - began < 5


async def test_records_are_written_while_the_store_is_looked_through(place: Path) -> None:
    """There may be a million to remove."""
    store = RecordStore(place, settings_of(place))
    steps: list[int] = []

    def endless(database: Database) -> Iterator[None]:
        while True:
            steps.append(1)
            yield

    writer = RecordWriter(lambda: database_in(place), endless, _nothing, _nothing)
    with anyio.fail_after(60):
        for number in range(3):
            written = writer.put(row(f"run{number}", 1.0, ended=2.0), wait=True)
            assert written is not None
            await written
            assert len(rows(place)) == number + 1
        await anyio.to_thread.run_sync(writer.close)
    assert steps
    store.close()


def _nothing(database: Database) -> None:
    pass


def test_servers_that_begin_tasks_at_once_keep_to_the_bounds_together(place: Path) -> None:
    database_in(place).close()
    start = threading.Barrier(4)
    refused: list[Exception] = []

    def begin() -> None:
        database = database_in(place)
        table = TaskTable(database, TaskBounds(per_caller=10, in_all=100, size=1000))
        start.wait(60)
        for _ in range(10):
            try:
                table.create(task("ada"))
            except QueueFull as exc:
                refused.append(exc)
        database.close()

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
    database = database_in(place)
    assert database.read("SELECT count(*) FROM tasks") == [(10,)]
    assert len(refused) == 30
    database.close()


def test_tasks_of_a_caller_with_a_long_name_are_bounded_and_found(place: Path) -> None:
    database = database_in(place)
    table = TaskTable(database, TaskBounds(per_caller=2, in_all=100, size=1000))
    tasks = [task(LONG), task(f"{LONG}x"), task(LONG)]
    for each in tasks:
        table.create(each)
    with pytest.raises(QueueFull):
        table.create(task(LONG))
    found = table.find(tasks[0].id)
    assert found is not None
    assert found.caller == storable_name(LONG)
    database.close()


def task(caller: str) -> StoredTask:
    now = time.time()
    return StoredTask(secrets.token_hex(16), "s", caller, "tool", WORKING, None, now, now, now + 900, 300.0)
