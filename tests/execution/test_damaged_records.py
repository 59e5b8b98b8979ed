"""Records where what they meet is damaged, hostile, or not what they were made for: no call pays for it, and nothing
grows."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records import sql, writer
from praxis_mcp.execution.records.archive import RunArchive
from praxis_mcp.execution.records.audit import AUDIT, AuditTrail, read
from praxis_mcp.execution.records.database import Bounds, Filters
from praxis_mcp.execution.records.row import COLUMNS, About
from praxis_mcp.execution.records.store import DATABASE, KEY, RecordStore, close_lost_runs
from praxis_mcp.execution.records.writer import RecordWriter
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import RecordSettings
from tests.execution.test_record_store import log, opened, record_run, row, rows, toolbox_for
from tests.kit.records import DATABASES, database_in, records_place
from tests.kit.until import until

pytestmark = pytest.mark.anyio
__all__ = ["log"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "records"


@pytest.fixture(params=DATABASES)
def either_place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    with records_place(tmp_path, request.param) as place:
        yield place


def _pipe(file: Path) -> None:
    os.mkfifo(file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_text("not a key"),
        lambda file: file.write_text(""),
        lambda file: file.write_bytes(b"\xff" * 64),
        lambda file: file.mkdir(),
        lambda file: file.symlink_to("nowhere"),
        _pipe,
    ],
    ids=["other text", "empty", "bytes", "directory", "dangling link", "pipe"],
)
async def test_a_damaged_key_costs_arguments_in_records_and_no_call(
    place: Path, log: Callable[[], str], damage: Callable[[Path], object]
) -> None:
    place.mkdir()
    damage(place / KEY)
    tool = ToolContract.create_local_tool("t", ["/bin/true"], parameters=[{"name": "word"}])
    async with toolbox_for(place, arguments="hashed") as toolbox:
        for word in ("one", "two"):
            assert (await toolbox.call(tool, {"word": word})).success
    assert [run.arguments for run in rows(place)] == [None, None], "and none by a key that others know"
    assert log().count("arguments are not recorded") == 1


async def test_text_that_is_not_unicode_is_recorded_by_numbers_and_keeps_no_other_run_from_being_recorded(
    either_place: Path,
) -> None:
    tool = ToolContract.create_local_tool("t", ["/bin/true"])
    async with toolbox_for(either_place, arguments="masked") as toolbox:
        for caller in ("na\udce9ve", "ada", "nu\0l"):
            await toolbox.runner.run(tool, {}, caller=caller)
        arguments = await toolbox.records.relayed_arguments({"word": "half \ud83d of one"}, {})
        about = About("na\udce9ve", arguments=arguments)
        await toolbox.records.start_relayed("relayed", "t", "upstream:u", about=about)
    database = database_in(either_place)
    found = {run.caller: run for run in database.select(Filters())}
    named = [run.caller for run in database.select(Filters(caller="na\udce9ve"))]
    database.close()
    assert set(found) == {"na\\udce9ve", "ada", "nu\\x00l", ""}
    assert (found[""].client, found[""].arguments) == ("na\\udce9ve", '{"word": "half \\ud83d of one"}')
    assert named == ["na\\udce9ve"]


async def test_a_defect_in_writing_one_run_costs_that_run_and_none_that_are_written_with_it(
    either_place: Path, log: Callable[[], str]
) -> None:
    async with opened(either_place) as records:
        first = await record_run(records)
        assert records._store is not None
        for run_id, code in (("before", 0), ("broken", "none"), ("after", 0)):  # which is no number
            records._store.writer.put(row(run_id, 1.0, ended=2.0, exit_code=code))
        await until(lambda: "the record of run broken is lost" in log())
        last = await record_run(records)
    assert {run.id for run in rows(either_place)} == {first.run_id, "before", "after", last.run_id}
    assert "not recorded" not in log()


COLUMNS_OF_JSON = ("phases", "why", "plan", "artifacts", "changed_files")
DAMAGES = ["", "not JSON", "7", "null", '["x"]', '{"a": []}', '[{"name": "a"}]', "[" * 100_000]


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
def test_json_that_somebody_has_changed_in_the_database_is_left_out_and_named(either_place: Path, damage: str) -> None:
    either_place.mkdir()
    database = database_in(either_place)
    database.write([row("whole", 2.0, phases='{"run": 1.5}')])
    database.write([row("changed", 1.0, **dict.fromkeys(COLUMNS_OF_JSON, damage))])
    whole, changed = (run.as_json() for run in database.select(Filters()))
    database.close()
    assert whole["phases"] == {"run": 1.5}
    assert "damaged" not in whole
    assert set(changed["damaged"]) <= set(COLUMNS_OF_JSON)
    assert len(changed["damaged"]) >= 3
    assert all(changed["passed_over" if name == "why" else name] in ({}, []) for name in changed["damaged"])


@pytest.mark.parametrize("value", ["text", b"\xff\x00", 7, 1e300, -1.5, float("inf"), 2**62], ids=repr)
def test_values_of_other_kinds_than_their_columns_keep_no_run_from_being_read(
    place: Path, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_ROWS_AT_ONCE", 1)
    place.mkdir()
    database = database_in(place)
    assert isinstance(database, sql.SqlDatabase)
    database.write([row("a", 1.0), row("b", 2.0), row("c", 3.0)])
    with database.transaction() as run_sql:
        for name in (name for name in COLUMNS if name != "id"):
            run_sql(f"UPDATE runs SET {name} = ? WHERE id = 'b'", (value,))
    found = {run.id: (run.as_json(), run.weight) for run in database.select(Filters())}
    assert database.find("b") is not None
    database.remove_beyond(Bounds(10**9, 100, 10**9), 4.0)
    database.close()
    assert set(found) == {"a", "b", "c"}


async def test_the_trail_is_written_where_the_database_cannot_be_opened(place: Path) -> None:
    async with opened(place) as records:
        (place / DATABASE).write_text("not a database" * 100)
        run = await record_run(records)
        await until(lambda: [line["run"] for line in read(place)] == [run.run_id])


async def test_lines_that_cannot_be_written_are_bounded_wherever_they_come_from(
    place: Path, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_LINES", 10)
    (place / AUDIT).mkdir(parents=True)
    async with opened(place) as records:
        (place / DATABASE).mkdir()
        for number in range(50):
            records.refused(f"t{number}", "eve", "unknown_tool")
        await until(lambda: "runs are not recorded for now" in log())
        for number in range(50):
            records.refused(f"t{number}", "eve", "unknown_tool")
        (place / AUDIT).rmdir()
    assert len(list(read(place))) == 10
    assert "the audit trail has lost 90 lines" in log()


async def test_output_of_many_small_pieces_is_held_and_written_as_few(place: Path) -> None:
    async with opened(place) as records:
        plan = build_plan(ToolContract.create_local_tool("t", ["x"]), {}, Settings())
        record = await records.start(plan, "local")
        hear = records.listener(record, None)
        assert hear is not None
        for number in range(20_000):
            hear("stdout" if number % 20_000 < 10_000 else "stderr", b"x")
        database = database_in(place)
        await until(lambda: sum(len(data) for *_, data in database.live_output(record.run_id, 0)) == 20_000)
        pieces = database.live_output(record.run_id, 0)
        database.close()
        await records.fail(record, "over")
    assert len(pieces) < 20


async def test_pieces_that_alternate_count_for_what_they_take_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> object:
        raise RecordsUnavailable("locked")

    monkeypatch.setattr(writer, "MOST_HELD", 100_000)
    held = RecordWriter(fail, lambda _: None, lambda _: None, lambda _: None)  # pyright: ignore[reportArgumentType]
    for number in range(20_000):
        held.put_output("run", ("stdout", "stderr")[number % 2], b"x")
    assert len(held._live.take()["run"]) < 1000
    held.close()


async def test_what_a_cancelled_run_has_left_is_removed_with_it(place: Path) -> None:
    tool = ToolContract.create_local_tool("t", ["/bin/sh", "-c", "head -c 3000000 /dev/zero; sleep 60"], timeout=90)
    seen = 0

    def hear(_: str, data: bytes) -> None:
        nonlocal seen
        seen += len(data)

    async with toolbox_for(place) as toolbox, anyio.create_task_group() as tasks:

        async def call() -> None:
            await toolbox.call(tool, on_output=hear)

        tasks.start_soon(call)
        await until(lambda: seen == 3_000_000 and any((place / "files").iterdir()))
        tasks.cancel_scope.cancel()
    assert [run.outcome for run in rows(place)] == ["cancelled"]
    assert list((place / "files").iterdir()) == []


def test_ids_from_a_database_lead_to_no_file_outside_the_store(tmp_path: Path, place: Path) -> None:
    (place / "files").mkdir(parents=True)
    (place / "servers").mkdir()
    own = tmp_path / "own"
    own.mkdir()
    (own / "file").write_text("dear")
    database = database_in(place)
    database.write([row(name, 1.0, ended=2.0) for name in ("../../own", str(own), "..", ".")])
    database.write([row("open", 1.0, server="../../own/file")])
    close_lost_runs(database, place)
    archive = RunArchive(place, database)
    assert archive.remove(archive.runs(Filters())) == 5
    database.close()
    assert (own / "file").read_text() == "dear"
    assert {path.name for path in place.iterdir()} >= {"files", "servers", DATABASE}


async def test_what_does_not_belong_among_the_servers_keeps_nothing_from_being_bounded(
    tmp_path: Path, place: Path
) -> None:
    (place / "servers" / "directory").mkdir(parents=True)
    (tmp_path / "own").write_text("dear")
    (place / "servers" / "link").symlink_to(tmp_path / "own")
    _pipe(place / "servers" / "pipe")
    database = database_in(place)
    now = time.time()
    database.write([row(f"run{number}", now - number, ended=now) for number in range(5)])
    database.write([row("open", now, server="directory")])
    database.close()
    async with opened(place, max_runs=2):
        store = RecordStore(place, RecordSettings(directory=place, max_runs=2))
        database = database_in(place)
        assert [*store._upkeep(database)]
        assert len(list(database.select(Filters()))) == 2
        database.close()
    assert (tmp_path / "own").read_text() == "dear"


async def test_a_lost_run_that_the_trail_cannot_have_is_closed_when_it_can(place: Path) -> None:
    (place / AUDIT).mkdir(parents=True)
    database = database_in(place)
    database.write([row("left", 1000.0), row("run", 1.0, ended=1.0)], [("left", "stdout", b"x" * 5000)])
    trail = AuditTrail(place, 10**9)
    with pytest.raises(RecordsUnavailable):
        close_lost_runs(database, place, trail)
    (place / AUDIT).rmdir()
    close_lost_runs(database, place, trail)
    close_lost_runs(database, place, trail)
    assert [(line["run"], line["outcome"]) for line in read(place)] == [("left", "lost")]
    assert database.remove_beyond(Bounds(10**9, 100, 4000), 2000.0) == ["left"], "what it put out counts"
    database.close()


READ_ONLY = """
import sys
from contextlib import closing
from pathlib import Path

import anyio

from praxis_mcp.execution.toolbox import open_toolbox
from praxis_mcp.settings.model import Settings
from tests.execution.test_record_store import record_run


async def main():
    async with open_toolbox(Settings(tools=(Path(sys.argv[1]),)), keep_records=True) as toolbox:
        record = await record_run(toolbox.records, stdout=b"x" * 100_000)
        assert await record.read("stdout", 0, 3) == b"xxx"
        assert record.path("stdout") is not None


anyio.run(main)
"""


@pytest.mark.sandbox
async def test_a_store_that_can_only_be_read_costs_no_call_its_output(tmp_path: Path) -> None:
    mounted = (
        'mount -t tmpfs none "$0" && mkdir -p "$0/praxis-mcp/records/files" "$0/praxis-mcp/records/servers" && '
        'mount -o remount,ro "$0" && exec "$@"'
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", mounted, str(tmp_path)]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    environment.pop("PRAXIS_RECORDS__ENABLED", None)
    with anyio.fail_after(120):
        done = await anyio.run_process(
            [*command, sys.executable, "-c", READ_ONLY, str(tmp_path)],
            check=False,
            cwd=Path(__file__).parents[2],
            env=environment,
        )
    assert done.returncode == 0, done.stderr.decode()


def test_a_slow_reader_of_all_runs_sees_each_once_and_keeps_no_log_from_being_emptied(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_ROWS_AT_ONCE", 3)
    place.mkdir()
    database = database_in(place)
    database.write([row(f"run{number}", number // 2, ended=100.0, tool="ab"[number % 2]) for number in range(20)])
    everything = [f"run{number}" for number in reversed(range(20))]
    assert [run.id for run in database.select(Filters())] == everything
    assert [run.id for run in database.select(Filters(), 7)] == everything[:7]
    assert [run.id for run in database.select(Filters(tool="a", since=2.0), 6)] == everything[1:12:2]
    assert list(database.select(Filters(), 0)) == []
    slow = database.select(Filters())
    next(slow)
    other = sqlite3.connect(place / DATABASE, isolation_level=None, timeout=0.1)
    other.execute("DELETE FROM runs WHERE id = 'run19'")
    (busy, _, _) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    other.close()
    assert busy == 0
    assert [run.id for run in slow] == everything[1:]
    database.close()


@pytest.mark.parametrize(("mode", "warned"), [(0o700, False), (0o755, False), (0o777, True), (0o770, True)])
async def test_a_directory_that_others_can_write_to_is_named_in_the_log(
    place: Path, log: Callable[[], str], mode: int, warned: bool
) -> None:
    place.mkdir()
    place.chmod(mode)
    async with opened(place) as records:
        await record_run(records)
    assert ("others can write to" in log()) is warned


@pytest.mark.parametrize("name", ["../../../secret", "/{place}/secret", "deep/../../../../secret", ".", ""])
async def test_a_row_of_another_server_names_no_file_outside_of_its_run(either_place: Path, name: str) -> None:
    either_place.mkdir()
    (either_place / "secret").write_text("of this machine")
    run_id = "0" * 32
    (either_place / "files" / run_id / "artifacts").mkdir(parents=True)
    named = json.dumps([{"name": name.format(place=either_place), "size": 15}])
    with closing(database_in(either_place)) as database:
        database.write([row(run_id, 1.0, ended=2.0, caller="ada", stdout=b"", stderr=b"", artifacts=named)])
        (found,) = list(database.select(Filters()))
        assert found.as_json()["artifacts"] == []
        assert found.as_json()["damaged"] == ["artifacts"]
        assert RunArchive(either_place, database).artifacts(found) == ()
    async with opened(either_place) as records:
        assert (await records.find(run_id, "ada")).artifacts == ()
