"""What is kept of runs beyond the life of a server."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.output import Captured
from praxis_mcp.errors import LimitUnsupported, RecordsUnavailable
from praxis_mcp.execution.records import audit, upkeep, writer
from praxis_mcp.execution.records.database import Bounds, Filters
from praxis_mcp.execution.records.record import RunRecord
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.runs import RunRecords
from praxis_mcp.execution.records.store import DATABASE, RecordStore, close_lost_runs
from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.base import SecretRef
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import RecordSettings
from praxis_mcp.support.logs import logger
from tests.kit.records import DATABASES, URLS, database_in, records_place, settings_of
from tests.kit.until import until

pytestmark = pytest.mark.anyio

LIMIT = 60.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=DATABASES)
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    with records_place(tmp_path, request.param) as place:
        yield place


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Path:
    return tmp_path / "records"


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """What has been logged."""
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), level="INFO", format="{level} {message}")
    yield lambda: "".join(lines)
    logger.remove(handler)


@asynccontextmanager
async def opened(place: Path, **settings: Any) -> AsyncIterator[RunRecords]:
    with anyio.fail_after(LIMIT):
        own = settings_of(place, **settings)
        async with RunRecords(own, RecordStore(place, own)) as records:
            yield records


@asynccontextmanager
async def toolbox_for(place: Path, **records: Any) -> AsyncIterator[Toolbox]:
    settings = Settings(
        tools=(place.parent,),
        root=place.parent,
        records=settings_of(place, **records),
        engines={"local": {"sandbox": "off"}},  # pyright: ignore[reportArgumentType]
    )
    with anyio.fail_after(LIMIT):
        async with open_toolbox(settings) as toolbox:
            yield toolbox


async def record_run(records: RunRecords, tool: str = "t", stdout: bytes = b"out") -> RunRecord:
    plan = build_plan(ToolContract.create_local_tool(tool, ["x"]), {}, Settings())
    record = await records.start(plan, "local", "ada")
    captured = Captured(stdout, total=len(stdout))
    await records.finish(record, ExecutionResult(plan.call.run_id, "local", "process", 0, stdout=captured))
    return record


def rows(place: Path) -> list[StoredRun]:
    database = database_in(place, create=False)
    try:
        return [found for run in database.select(Filters()) if (found := database.find(run.id)) is not None]
    finally:
        database.close()


async def test_a_run_is_in_the_store_before_its_answer_is_given(place: Path) -> None:
    async with opened(place) as records:
        record = await record_run(records, stdout=b"what it wrote")
        (row,) = await anyio.to_thread.run_sync(rows, place)
    assert (row.id, row.tool, row.engine, row.caller, row.outcome) == (record.run_id, "t", "local", "ada", "ok")
    assert (row.stdout, row.stdout_bytes, row.exit_code) == (b"what it wrote", 13, 0)
    assert row.ended is not None
    assert row.started <= row.ended <= time.time()


async def test_a_run_that_goes_on_is_in_the_store_before_long_however_many_others_end_meanwhile(place: Path) -> None:
    plan = build_plan(ToolContract.create_local_tool("long", ["x"]), {}, Settings())
    async with opened(place) as records:
        await records.start(plan, "local")
        for _ in range(1000):
            await record_run(records)
            if "long" in {row.tool for row in await anyio.to_thread.run_sync(rows, place)}:
                break
        (going_on,) = [row for row in await anyio.to_thread.run_sync(rows, place) if row.tool == "long"]
    assert (going_on.outcome, going_on.ended) == ("running", None)


async def test_a_run_whose_beginning_was_not_written_yet_is_written_when_the_store_is_closed(place: Path) -> None:
    plan = build_plan(ToolContract.create_local_tool("long", ["x"]), {}, Settings())
    async with opened(place) as records:
        await records.start(plan, "local", "ada")
    (left,) = rows(place)
    assert (left.tool, left.caller, left.ended) == ("long", "ada", None)


async def test_nobody_else_can_read_the_store(sqlite_place: Path) -> None:
    umask = os.umask(0)
    try:
        async with opened(sqlite_place) as records:
            await record_run(records, stdout=b"x" * 100_000)
            found = {path: path.stat().st_mode & 0o777 for path in [sqlite_place, *sqlite_place.rglob("*")]}
    finally:
        os.umask(umask)
    assert found[sqlite_place] == 0o700
    assert found[sqlite_place / "files"] == 0o700
    assert {mode for path, mode in found.items() if path.parent == sqlite_place and path.is_file()} == {0o600}
    assert {path.name for path in found} >= {DATABASE, f"{DATABASE}-wal", "stdout"}


async def test_a_database_that_others_could_read_is_closed_to_them(sqlite_place: Path) -> None:
    async with opened(sqlite_place) as records:
        await record_run(records)
    (sqlite_place / DATABASE).chmod(0o644)
    async with opened(sqlite_place) as records:
        await record_run(records)
    assert (sqlite_place / DATABASE).stat().st_mode & 0o777 == 0o600


async def test_a_record_says_what_ran_and_who_called_and_holds_no_secret_variable_or_argument(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    tool = ToolContract.create_local_tool(
        "t",
        ["/bin/sh", "-c", 'echo "$TOKEN $WORD"; exit 3'],
        env={"TOKEN": SecretRef(secret="TOKEN"), "PLAIN": "plain-value"},
        parameters=[{"name": "word", "bind": {"env": "WORD"}}],
    )
    async with toolbox_for(place) as toolbox:
        await toolbox.runner.run(tool, {"word": "argument-value"}, caller="ada")
    (row,) = rows(place)
    assert (row.outcome, row.exit_code, row.isolation, row.root) == ("failed", 3, "process", str(tmp_path))
    assert row.stdout == b"*** argument-value\n", "what the tool wrote, its secrets masked"
    assert row.arguments is None
    shown = repr(replace(row, stdout=None))
    for value in ("hunter2", "argument-value", "plain-value"):
        assert value not in shown
    assert '"where": "host"' in row.plan
    assert row.as_json()["phases"].keys() >= {"queue", "run"}


async def test_a_run_is_recorded_from_when_its_call_came_its_wait_for_a_place_included(
    tmp_path: Path, place: Path
) -> None:
    go = tmp_path / "go"
    script = f'until [ -e "{go}" ]; do sleep 0.05; done'
    tool = ToolContract.create_local_tool("t", ["/bin/sh", "-c", script], max_concurrency=1)
    async with toolbox_for(place) as toolbox, anyio.create_task_group() as calls:
        calls.start_soon(toolbox.call, tool)
        calls.start_soon(toolbox.call, tool)
        await until(lambda: toolbox.runner.admission.waiting == 1)
        go.touch()
    (line,) = (line for line in audit.read(place) if line["seq"] == 2)
    (last,) = (row.as_json() for row in rows(place) if row.id == line["run"])
    assert last["phases"]["queue"] > 0
    assert last["seconds"] > sum(last["phases"].values()) - 0.001
    assert line["ms"] == round(last["seconds"] * 1000, 1)


async def test_a_clock_that_is_set_back_meanwhile_makes_no_run_end_before_it_began(place: Path) -> None:
    async with opened(place) as records:
        record = await records.start(build_plan(ToolContract.create_local_tool("t", ["x"]), {}, Settings()), "local")
        record.phases.enter("run")
        record.started += timedelta(hours=1)  # what the clock said before
        await records.finish(record, ExecutionResult(record.run_id, "local", "process", 0))
    (row,) = rows(place)
    assert row.ended is not None
    assert row.started < row.ended < row.started + LIMIT


@pytest.mark.parametrize("mode", ["masked", "hashed"])
async def test_arguments_are_recorded_only_as_the_settings_ask(
    place: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    tool = ToolContract.create_local_tool(
        "t",
        ["/bin/true"],
        env={"TOKEN": SecretRef(secret="TOKEN")},
        parameters=[{"name": "word"}, {"name": "password", "keywords": {"writeOnly": True}}],
    )
    async with toolbox_for(place, arguments=mode) as toolbox:
        for word in ("say hunter2hunter2", "say hunter2hunter2", "another"):
            await toolbox.call(tool, {"word": word, "password": "swordfish"})
    shown = [row.arguments or "" for row in rows(place)]
    assert not any("swordfish" in text or "hunter2" in text for text in shown)
    if mode == "masked":
        assert sorted(shown)[-1] == '{"word": "say ***", "password": "***"}'
    else:
        assert all(text.startswith("hmac-sha256:") for text in shown)
        assert len(set(shown)) == 2, "equal arguments have equal digests"
        assert (place / "key").stat().st_mode & 0o777 == 0o600


async def test_a_call_that_no_engine_can_carry_out_leaves_a_record_with_the_reason(place: Path) -> None:
    tool = ToolContract.create_local_tool("t", ["/bin/ls", "/seen"], mounts={"./": "/seen"})
    async with toolbox_for(place) as toolbox:
        with pytest.raises(LimitUnsupported):
            await toolbox.call(tool, {})
    (row,) = rows(place)
    assert (row.outcome, row.engine) == ("error", "")
    assert row.error is not None
    assert "mounts" in row.error


async def test_a_cancelled_run_is_recorded_as_such_and_one_that_has_ended_stays_ended(place: Path) -> None:
    async with opened(place) as records:
        plan = build_plan(ToolContract.create_local_tool("t", ["x"]), {}, Settings())
        record = await records.start(plan, "local")
        with anyio.CancelScope() as scope:
            async with records.watched(record):
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        ended = await record_run(records)
        with anyio.CancelScope() as scope:
            async with records.watched(ended):
                scope.cancel()
                await anyio.lowlevel.checkpoint()
    assert {row.id: row.outcome for row in rows(place)} == {record.run_id: "cancelled", ended.run_id: "ok"}


async def test_the_oldest_runs_give_way_to_a_bound_on_their_number_with_their_files(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "UPKEEP_AFTER", 1)
    async with opened(place, max_runs=2) as records:
        runs = [await record_run(records, stdout=b"x" * 100_000) for _ in range(5)]
    assert {row.id for row in rows(place)} >= {run.run_id for run in runs[-2:]}
    async with opened(place, max_runs=2) as records:  # the next server looks as well
        last = await record_run(records)
    assert len(rows(place)) <= 3
    assert {path.name for path in (place / "files").iterdir()} == {
        row.id for row in rows(place) if row.id != last.run_id
    }


async def test_a_run_that_exceeds_the_bound_by_itself_takes_no_other_with_it_and_that_is_said(
    place: Path, log: Callable[[], str]
) -> None:
    async with opened(place, max_bytes=90_000) as records:
        small = [await record_run(records) for _ in range(3)]
        large = await record_run(records, stdout=b"x" * 100_000)
        small += [await record_run(records) for _ in range(3)]
        assert f"the files of run {large.run_id} exceed records.max_bytes" in log()
    async with opened(place, max_bytes=90_000) as records:
        await record_run(records)
        await until(lambda: large.run_id not in {row.id for row in rows(place)})
        await until(lambda: not (place / "files" / large.run_id).exists())
    assert {row.id for row in rows(place)} >= {run.run_id for run in small}


async def test_processes_that_end_with_their_first_run_keep_the_bounds_too(place: Path) -> None:
    for number in range(5):
        settings = settings_of(place, max_runs=2)
        async with RunRecords(settings, store := RecordStore(place, settings)):
            store.writer.put(row(f"run{number}", time.time(), ended=time.time()))
        assert len(rows(place)) == min(number + 1, 2)


@pytest.mark.parametrize(
    ("bounds", "left"),
    [
        (Bounds(max_age=100, max_runs=100, max_bytes=10**9), 10),
        (Bounds(max_age=4.5, max_runs=100, max_bytes=10**9), 4),
        (Bounds(max_age=100, max_runs=3, max_bytes=10**9), 2),  # and the one that runs
        (Bounds(max_age=100, max_runs=0, max_bytes=10**9), 0),
        (Bounds(max_age=100, max_runs=100, max_bytes=25), 2),
        (Bounds(max_age=100, max_runs=100, max_bytes=30), 3),
        (Bounds(max_age=100, max_runs=100, max_bytes=0), 0),
    ],
)
def test_what_exceeds_a_bound_is_removed_oldest_first_and_what_runs_is_not(
    place: Path, bounds: Bounds, left: int
) -> None:
    place.mkdir()
    database = database_in(place)
    now = 1000.0
    runs = [row(f"run{number}", now - number, ended=now, kept_bytes=10) for number in range(1, 11)]
    database.write([*runs, row("open", now - 50)])
    while database.remove_beyond(bounds, now):
        pass
    kept = [run.id for run in database.select(Filters())]
    database.close()
    assert kept == [*(f"run{number}" for number in range(1, left + 1)), "open"]


def row(run_id: str, started: float, **fields: Any) -> StoredRun:
    outcome = "ok" if "ended" in fields else "running"
    known = {"tool": "t", "engine": "local", "caller": "", "client": "", "root": "", "outcome": outcome}
    return StoredRun(
        id=run_id, started=started, contract="", contract_sha256="", **{"server": "gone", **known, **fields}
    )


def test_a_database_gives_room_back_that_removed_runs_took(sqlite_place: Path) -> None:
    sqlite_place.mkdir()
    database = database_in(sqlite_place)
    for number in range(50):
        database.write([row(f"run{number}", number, ended=number, stdout=b"x" * 60_000)])
    database.close()
    full = (sqlite_place / DATABASE).stat().st_size
    database = database_in(sqlite_place)
    while database.remove_beyond(Bounds(max_age=10**9, max_runs=2, max_bytes=10**9), 100):
        pass
    database.close()
    assert (sqlite_place / DATABASE).stat().st_size < full / 4


async def test_runs_of_a_server_that_is_gone_are_closed_as_lost_by_the_next_one_and_no_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place in URLS:
        monkeypatch.setattr("praxis_mcp.execution.records.postgres.SILENCE", 0.0)
    async with opened(place) as living:
        plan = build_plan(ToolContract.create_local_tool("t", ["x"]), {}, Settings())
        running = await living.start(plan, "local")
        database = database_in(place)
        database.write([row("left", time.time()), row("done", time.time(), ended=time.time())])

        def outcomes() -> dict[str, str]:
            return {run.id: run.outcome for run in rows(place)}

        await until(lambda: running.run_id in outcomes())
        close_lost_runs(database, place)
        database.close()
        assert outcomes() == {"left": "lost", "done": "ok", running.run_id: "running"}
        await living.finish(running, ExecutionResult(running.run_id, "local", "process", 0))
        assert outcomes()[running.run_id] == "ok"


async def test_a_locked_database_costs_no_answer_and_the_records_are_written_when_it_is_free(
    sqlite_place: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[[], str]
) -> None:
    monkeypatch.setattr("praxis_mcp.execution.records.sqlite.BUSY_TIMEOUT", 0.05)
    async with opened(sqlite_place) as records:
        await record_run(records)
        other = sqlite3.connect(sqlite_place / DATABASE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = anyio.current_time()
        during = [await record_run(records) for _ in range(20)]
        assert anyio.current_time() - began < 30, "only the first of them wait, each a quarter of a second at most"
        await until(lambda: "runs are not recorded for now" in log())
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: "runs are recorded again; the records of 0 are lost" in log())
    assert {run.id for run in rows(sqlite_place)} >= {record.run_id for record in during}
    assert log().count("runs are not recorded for now") == 1


FULL_DISK = """
import os, sys
from pathlib import Path

import anyio

from praxis_mcp.support.logs import NAME, logger
from tests.execution.test_record_store import opened, record_run, rows
from tests.kit.until import until

logged = []
logger.enable(NAME)
logger.remove()
logger.add(lambda message: logged.append(str(message)), level="INFO", format="{level} {message}")
place = Path(sys.argv[1]) / "records"


async def main():
    async with opened(place) as records:
        first = await record_run(records)
        filler = place.parent / "filler"
        with filler.open("wb", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(1024))
            except OSError:
                pass
        during = [await record_run(records, stdout=b"x" * size) for size in [2000] * 20 + [100_000]]
        assert all(record.result is not None for record in during)
        await until(lambda: "database or disk is full" in "".join(logged))
        assert sum("WARNING" in line for line in logged) == 2, logged  # that, and that the long stream is not kept
        assert [row.id for row in rows(place)] == [first.run_id]
        filler.unlink()
        await until(lambda: "runs are recorded again; the records of 0 are lost" in "".join(logged))
    assert {row.id for row in rows(place)} == {first.run_id, *(record.run_id for record in during)}


anyio.run(main)
"""


@pytest.mark.sandbox
async def test_a_full_disk_costs_no_answer_and_the_records_are_written_when_there_is_room(tmp_path: Path) -> None:
    mounted = 'mount -t tmpfs -o size=512k none "$0" && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", mounted, str(tmp_path)]
    with anyio.fail_after(4 * LIMIT):
        done = await anyio.run_process(
            [*command, sys.executable, "-c", FULL_DISK, str(tmp_path)], check=False, cwd=Path(__file__).parents[2]
        )
    assert done.returncode == 0, done.stderr.decode()


async def test_beyond_a_bound_the_oldest_records_that_cannot_be_written_are_dropped_and_counted(
    sqlite_place: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[[], str]
) -> None:
    monkeypatch.setattr(writer, "MOST_HELD", 20_000)
    async with opened(sqlite_place) as records:
        (sqlite_place / DATABASE).mkdir()
        runs = [await record_run(records, stdout=b"x" * 2000) for _ in range(30)]
        await until(lambda: "runs are not recorded for now" in log())
        (sqlite_place / DATABASE).rmdir()
        await until(lambda: "runs are recorded again" in log())
    kept = [row.id for row in reversed(rows(sqlite_place))]
    assert 1 < len(kept) < 30
    assert kept == [run.run_id for run in runs[-len(kept) :]]
    assert f"the records of {30 - len(kept)} are lost" in log()


async def test_a_store_that_cannot_be_made_where_it_is_by_default_costs_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[[], str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    async with open_toolbox(Settings(tools=(tmp_path,)), keep_records=True) as toolbox:
        record = await record_run(toolbox.records, stdout=b"x" * 100_000)
        assert await record.read("stdout", 0, 3) == b"xxx"
    assert "runs are not recorded" in log()


def test_a_store_of_a_later_version_is_left_as_it_is(sqlite_place: Path) -> None:
    sqlite_place.mkdir()
    database_in(sqlite_place).close()
    connection = sqlite3.connect(sqlite_place / DATABASE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RecordsUnavailable, match="later version"):
        database_in(sqlite_place)


def test_what_is_not_a_database_is_said_to_be_so_and_left_alone(sqlite_place: Path) -> None:
    sqlite_place.mkdir()
    (sqlite_place / DATABASE).write_text("something else of this user's" * 100)
    with pytest.raises(RecordsUnavailable, match="not a database") as failure:
        database_in(sqlite_place)
    assert "Move" in (failure.value.remedy or "")
    assert (sqlite_place / DATABASE).read_text().startswith("something else")


def test_a_link_in_place_of_the_database_is_not_followed(tmp_path: Path, sqlite_place: Path) -> None:
    sqlite_place.mkdir()
    (sqlite_place / DATABASE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordsUnavailable, match="not a regular file"):
        database_in(sqlite_place)
    assert not (tmp_path / "elsewhere").exists()


def test_many_processes_open_a_fresh_store_at_once(sqlite_place: Path) -> None:
    sqlite_place.mkdir()
    write_by_processes_at_once(sqlite_place)


def write_by_processes_at_once(place: Path) -> None:
    """Each of four processes opens the database there at the same moment, and writes a run."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.kit.records import URLS, database_in\n"
        "from tests.execution.test_record_store import row\n"
        "place, url, run = Path(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
        "if url: URLS[place] = url\n"
        "sys.stdin.readline()\n"
        "database = database_in(place); database.write([row(run, 1.0)]); database.close()\n"
    )
    runs = [f"run{number}" for number in range(4)]
    many = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(place), URLS.get(place, ""), run], stdin=subprocess.PIPE, cwd=ROOT
        )
        for run in runs
    ]
    try:
        for each in many:
            assert each.stdin is not None
            each.stdin.write(b"go\n")
            each.stdin.flush()
        assert [each.wait(timeout=120) for each in many] == [0] * 4
    finally:
        for each in many:
            each.kill()
            each.communicate(timeout=60)
    assert sorted(run.id for run in rows(place)) == runs


async def test_the_library_records_only_where_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = Settings(tools=(tmp_path,))
    off = settings.model_copy(update={"records": RecordSettings(enabled=False)})
    for each, keep, kept in ((settings, None, False), (off, True, False), (settings, True, True)):
        async with open_toolbox(each, keep_records=keep) as toolbox:
            await record_run(toolbox.records)
        assert (tmp_path / "state" / "praxis-mcp" / "records" / DATABASE).exists() is kept


def test_sqlite_is_not_imported_before_a_run_is_recorded() -> None:
    script = "import sys, praxis_mcp.cli.serve, praxis_mcp.serving.stdio; assert 'sqlite3' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
