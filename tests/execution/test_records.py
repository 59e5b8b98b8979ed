"""What is kept of runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult, RemoteContent
from praxis_mcp.engines.output import Captured, StreamCollector
from praxis_mcp.errors import RunCancelled, RunNotFoundError, SettingsError
from praxis_mcp.execution.records.record import RunRecord
from praxis_mcp.execution.records.runs import RunRecords
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.plans.build import build_plan, new_run_id
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import RecordSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.scratch import remove_directory

pytestmark = pytest.mark.anyio

LONG = Captured(b"x" * 100_000, total=100_000)
"""Longer than what a record keeps in memory."""


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """What has been logged."""
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), level="INFO", format="{message}")
    yield lambda: "".join(lines)
    logger.remove(handler)


async def record_run(records: RunRecords, stdout: Captured = LONG) -> RunRecord:
    plan = build_plan(ToolContract.create_local_tool("t", ["x"]), {}, Settings())
    record = await records.start(plan, "local")
    await records.finish(record, ExecutionResult(plan.call.run_id, "local", "process", 0, stdout=stdout))
    return record


async def test_only_the_newest_runs_are_kept_on_disk_and_in_memory() -> None:
    async with RunRecords(RecordSettings(keep=2)) as records:
        runs = [await record_run(records) for _ in range(5)]
        kept = [item.run_id for item in records.entries()]
        assert kept == [run.run_id for run in reversed(runs[2:])]  # two ended ones, and the one that was just started
        assert [place(run).exists() for run in runs] == [False, False, True, True, True]
        with pytest.raises(RunNotFoundError, match=r"records\.keep"):
            records.get(runs[0].run_id)
        root = place(runs[-1]).parent
    assert not root.exists()


async def test_runs_that_begin_at_once_make_room_without_getting_in_each_others_way() -> None:
    async with RunRecords(RecordSettings(keep=3)) as records:
        for _ in range(5):
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    for _ in range(16):
                        tasks.start_soon(record_run, records)
        last = await record_run(records)
        assert {item.run_id for item in records.entries()} == {
            path.name for path in place(last).parent.iterdir() if path.is_dir()
        }
        assert len(records.entries()) == 4


async def test_a_run_that_is_cancelled_as_it_begins_leaves_neither_a_running_record_nor_a_directory() -> None:
    async with RunRecords(RecordSettings(keep=1)) as records:
        for number in range(3):
            await record_run(records)
            await record_run(records)  # so that the next one makes an older one give way
            with anyio.CancelScope() as scope:
                scope.cancel()
                begun = await records.start_relayed(f"cancelled{number}", "t", "upstream:up")
                async with records.watched(begun):
                    await anyio.lowlevel.checkpoint()
            assert scope.cancelled_caught
        assert not any(item.is_running for item in records.entries())
        last = await record_run(records)
        known = {item.directory for item in records.entries() if item.directory is not None}
        assert known == {path for path in place(last).parent.iterdir() if path.is_dir()}


async def test_a_run_that_leaves_nothing_for_the_disk_has_no_directory() -> None:
    async with RunRecords(RecordSettings(keep=1)) as records:
        root = place(await record_run(records)).parent
        short = [await record_run(records, Captured(b"short", total=5)) for _ in range(3)]
        assert [record.directory for record in short] == [None, None, None]
        assert os.listdir(root) == [], "that of the first has given way"


async def test_two_long_streams_at_once_share_the_directory_that_the_first_of_them_makes() -> None:
    async with RunRecords(RecordSettings()) as records:
        plan = build_plan(ToolContract.create_local_tool("t", ["x"], max_output=1024), {}, Settings())
        for _ in range(10):
            record = await records.start(replace(plan, call=replace(plan.call, run_id=new_run_id())), "local")
            context = ExecutionContext(
                directory=records.place_of(record), make_directory=partial(records.make_directory, record)
            )
            async with context.collectors(plan) as streams, anyio.create_task_group() as tasks:
                for collector in streams:
                    tasks.start_soon(collector.write, b"y" * 100_000)
            kept = [captured.file for captured in streams.captured]
            assert kept == [place(record) / "stdout", place(record) / "stderr"]


async def test_any_range_of_a_stream_can_be_read_whether_it_is_in_memory_or_in_a_file() -> None:
    short, long = b"0123456789", bytes(range(256)) * 1024
    async with RunRecords(RecordSettings()) as records:
        for data in (short, long):
            record = await record_run(records, Captured(data, total=len(data)))
            assert await record.read("stdout") == data
            assert await record.read("stdout", 3, 4) == data[3:7]
            assert record.size("stdout") == len(data)
        assert record.path("stdout") is not None
        assert record.result is not None
        assert record.result.stdout.head == b"", "a record holds long streams in their file, not in memory"


async def test_a_directory_that_cannot_be_made_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = RecordSettings(directory=tmp_path / "file" / "runs")
    store = RecordStore(tmp_path / "file" / "runs", settings)
    with pytest.raises(SettingsError, match=r"records\.directory"):
        async with RunRecords(settings, store):
            pass


async def test_links_and_locked_directories_that_a_tool_left_are_removed_without_touching_what_they_point_to(
    tmp_path: Path,
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    precious.chmod(0o644)
    async with RunRecords(RecordSettings()) as records:
        record = await record_run(records)
        locked = place(record) / "artifacts" / "locked"
        locked.mkdir(parents=True)
        (locked / "link").symlink_to(precious)
        locked.chmod(0o500)
    assert not place(record).exists()
    assert precious.read_text() == "keep me"
    assert precious.stat().st_mode & 0o777 == 0o644


def place(record: RunRecord) -> Path:
    assert record.directory is not None
    return record.directory


@pytest.mark.parametrize("keep", [2, 7, 10, 64])
@pytest.mark.parametrize("size", [0, 1, 7, 10, 11, 64, 500])
@pytest.mark.parametrize("piece", [1, 3, 64])
async def test_a_stream_is_kept_as_head_and_tail_and_whole_in_its_file(
    tmp_path: Path, keep: int, size: int, piece: int
) -> None:
    data = bytes(number % 251 for number in range(size))
    async with StreamCollector("stdout", keep=keep, file=tmp_path / "stdout", max_file=1000) as collector:
        for at in range(0, size, piece):
            await collector.write(data[at : at + piece])
    captured = collector.captured
    assert captured.total == size
    if size <= keep:
        assert (captured.data, captured.file, captured.omitted) == (data, None, 0)
    else:
        assert captured.head == data[: keep // 2]
        assert captured.tail == data[-(keep - keep // 2) :]
        assert captured.omitted == size - keep
        assert captured.file is not None
        assert captured.file.read_bytes() == data


async def test_a_file_holds_no_more_than_its_bound_and_the_total_is_still_right(tmp_path: Path) -> None:
    async with StreamCollector("stdout", keep=4, file=tmp_path / "stdout", max_file=10) as collector:
        for _ in range(10):
            await collector.write(b"abcdefgh")
    captured = collector.captured
    assert captured.total == 80
    assert (tmp_path / "stdout").read_bytes() == b"abcdefghab"
    assert captured.tail == b"gh"


@pytest.mark.parametrize("piece", [1, 2, 5, 100])
async def test_a_secret_is_masked_even_where_it_falls_into_two_pieces(tmp_path: Path, piece: int) -> None:
    heard = bytearray()
    collector = StreamCollector(
        "stdout",
        keep=20,
        masker=Masker(("hunter2hunter2",)),
        listener=lambda _, data: heard.extend(data),
        file=tmp_path / "stdout",
        max_file=1000,
    )
    data = b"before hunter2hunter2 between hunter2hunter2 hunter2 after"
    async with collector:
        for at in range(0, len(data), piece):
            await collector.write(data[at : at + piece])
    captured = collector.captured
    masked = b"before *** between *** hunter2 after"
    assert bytes(heard) == masked
    assert captured.file is not None
    assert captured.file.read_bytes() == masked
    assert captured.tail == masked[-10:]
    assert captured.omitted == len(masked) - 20


async def test_what_a_killed_server_left_is_swept_by_the_next_and_a_living_ones_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = (
        "import anyio, sys\n"
        "from praxis_mcp.execution.records.runs import RunRecords\n"
        "from praxis_mcp.settings.sections import RecordSettings\n"
        "async def main():\n"
        "    async with RunRecords(RecordSettings()):\n"
        "        print('open', flush=True)\n"
        "        sys.stdin.read()\n"
        "anyio.run(main)\n"
    )
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        for _ in range(2)
    ]
    try:
        with anyio.fail_after(60):
            for server in servers:
                assert server.stdout is not None
                assert await anyio.to_thread.run_sync(server.stdout.readline) == b"open\n"
        assert len(list(tmp_path.glob("praxis-mcp-runs-*"))) == 2
        servers[0].kill()
        servers[0].wait(timeout=60)
        async with RunRecords(RecordSettings()):
            left = list(tmp_path.glob("praxis-mcp-runs-*"))
            assert len(left) == 2, "the killed one's is gone, the living one's and ours are there"
    finally:
        for server in servers:
            server.kill()
            server.communicate(timeout=60)


async def test_a_root_that_a_cleaner_took_away_is_made_again() -> None:
    async with RunRecords(RecordSettings()) as records:
        first = await record_run(records)
        shutil.rmtree(place(first).parent)
        assert place(await record_run(records)).exists()


async def test_a_long_stream_that_cannot_be_kept_is_in_the_answer_all_the_same(
    tmp_path: Path, log: Callable[[], str]
) -> None:
    async with RunRecords(RecordSettings()) as records:
        root = place(await record_run(records)).parent
        shutil.rmtree(root)
        root.write_text("a file is in the way")
        plan = build_plan(ToolContract.create_local_tool("t", ["x"]), {}, Settings())
        record = await records.start(plan, "local")
        kept = await records.finish(record, ExecutionResult(plan.call.run_id, "local", "process", 0, stdout=LONG))
        assert kept.stdout.data == LONG.data
        assert not record.is_running
        assert f"the stdout of run {record.run_id} is not kept" in log()
        root.unlink()


def test_removing_a_directory_that_is_gone_leaves_the_modes_of_its_parent_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    remove_directory(tmp_path / "gone")
    assert tmp_path.stat().st_mode & 0o777 == 0o755


async def test_records_of_remote_answers_hold_none_of_their_content_in_memory() -> None:
    size, count = 1024 * 1024, 30
    tracemalloc.start()
    try:
        async with RunRecords(RecordSettings(keep=count)) as records:
            for number in range(count):
                image = {"type": "image", "mimeType": "image/png", "data": chr(65 + number) * size}
                record = await records.start_relayed(f"run{number}", "t", "upstream:up")
                answer = ExecutionResult(record.run_id, record.engine, "remote", 0, remote=RemoteContent((image,)))
                kept = await records.finish(record, answer)
                assert kept.remote is not None, "who called gets the whole"
                del image, answer, kept
            assert tracemalloc.get_traced_memory()[0] < 4 * size
            assert len(records.entries()) == count
    finally:
        tracemalloc.stop()


async def test_a_run_that_somebody_cancels_ends_its_call_with_an_error_that_says_so() -> None:
    plan = build_plan(ToolContract.create_local_tool("t", ["x"]), {}, Settings())
    async with RunRecords(RecordSettings()) as records:
        record = await records.start(plan, "local")

        async def call() -> None:
            async with records.watched(record):
                assert records.cancel(record.run_id)
                await anyio.sleep_forever()

        with pytest.raises(RunCancelled, match="Somebody has cancelled"):
            await call()
        assert (record.outcome, record.is_running) == ("cancelled", False)
        assert not records.cancel(record.run_id)


@pytest.mark.parametrize("at_the_end", [False, True])
async def test_a_run_whose_end_is_being_kept_is_cancelled_wholly_or_not_at_all(at_the_end: bool) -> None:
    plan = build_plan(ToolContract.create_local_tool("t", ["x"]), {}, Settings())
    result = ExecutionResult(plan.call.run_id, "local", "process", 0, stdout=LONG)
    async with RunRecords(RecordSettings()) as records:
        record = await records.start(plan, "local")
        if at_the_end:
            async with anyio.create_task_group() as tasks, records.watched(record):
                finishing = records.finish(record, result)
                tasks.start_soon(_cancel, records, record.run_id)
                await finishing
            assert record.outcome == "ok"
        else:

            async def call() -> None:
                async with records.watched(record):
                    records.cancel(record.run_id)
                    await records.finish(record, result)

            with pytest.raises(RunCancelled):
                await call()
            assert record.outcome == "cancelled"


async def _cancel(records: RunRecords, run_id: str) -> None:
    assert not records.cancel(run_id)
