"""Tasks over both databases, as one server keeps them: their bounds, stores that cannot be used, and other servers."""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from praxis_mcp.errors import RecordsUnavailable, RunNotFoundError
from praxis_mcp.execution.records import access
from praxis_mcp.execution.records.store import DATABASE, RecordStore
from praxis_mcp.execution.tasks import service
from praxis_mcp.execution.tasks.service import Again, Order, Say, TaskService
from praxis_mcp.execution.tasks.table import TaskBounds, TaskTable
from praxis_mcp.execution.tasks.task import WORKING, Outcome, StoredTask
from praxis_mcp.settings.sections import TaskSettings
from tests.execution.test_record_store import log
from tests.kit.records import DATABASES, database_in, records_place, settings_of
from tests.kit.until import until

pytestmark = pytest.mark.anyio
__all__ = ["log"]
LIMIT = 120.0
ORDER = Order("tool", "ada", 600.0)
BOUNDS = TaskBounds(100, 100, 1000)
DONE = Outcome(result='{"content":[]}')


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with records_place(tmp_path, request.param) as found:
        yield found


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Iterator[Path]:
    with records_place(tmp_path, "sqlite") as found:
        yield found


@pytest.fixture
def table(place: Path) -> Iterator[TaskTable]:
    place.mkdir()
    database = database_in(place)
    yield TaskTable(database, BOUNDS)
    database.close()


def task_of(server: str, **more: Any) -> StoredTask:
    now = time.time()
    values: dict[str, Any] = {"caller": "ada", "created": now, "updated": now, "expires": now + 900, "kept": 300.0}
    return StoredTask(
        secrets.token_hex(16), server, **{"tool": "tool", "status": WORKING, "message": None, **values, **more}
    )


def unable(task: StoredTask) -> None:
    """The contract is not here."""


@asynccontextmanager
async def opened_store(place: Path) -> AsyncIterator[RecordStore]:
    store = RecordStore(place, settings_of(place))
    store.prepare()
    with anyio.fail_after(LIMIT):
        try:
            yield store
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(store.close)


@asynccontextmanager
async def running(store: RecordStore, again: Again = unable, **settings: Any) -> AsyncIterator[TaskService]:
    tasks = TaskService(store, TaskSettings(**settings), again)
    async with anyio.create_task_group() as group:
        group.start_soon(tasks.run)
        yield tasks
        group.cancel_scope.cancel()


async def in_table(store: RecordStore, work: Callable[[TaskTable], Any]) -> Any:
    return await store.access.run(lambda database: work(TaskTable(database, BOUNDS)))


async def done(say: Say) -> Outcome:
    return DONE


async def status_of(tasks: TaskService, task: StoredTask) -> str:
    return (await tasks.get(task.id, "ada")).status


def leave_unlocked(place: Path, server: str) -> None:
    """As a killed server leaves it."""
    (place / "servers" / server).touch()


@pytest.mark.parametrize(
    ("size", "stay"),
    [(300, [False, True, True, True]), (600, [False, False, False, True]), (2000, [False] * 3 + [True])],
)
def test_the_oldest_results_give_way_to_the_newest(table: TaskTable, size: int, stay: list[bool]) -> None:
    tasks = [task_of("s") for _ in stay]
    for number, task in enumerate(tasks):
        table.create(task)
        assert table.end(task.id, "s", Outcome(result="x" * size), task.created + number)
        assert table.find(task.id) is not None, "however long it is"
    assert [table.find(task.id) is not None for task in tasks] == stay


def test_a_task_is_forgotten_when_its_time_has_come_and_one_that_works_a_minute_later(table: TaskTable) -> None:
    ended, working = task_of("s"), task_of("s")
    for task in (ended, working):
        table.create(task)
    table.end(ended.id, "s", DONE, ended.created)
    table.expire(ended.created + 299)
    assert table.find(ended.id) is not None
    table.expire(ended.created + 301)
    assert table.find(ended.id) is None
    table.expire(working.expires + 59)
    assert table.find(working.id) is not None
    table.expire(working.expires + 61)
    assert table.find(working.id) is None


def test_arguments_are_kept_only_until_a_task_has_ended(table: TaskTable) -> None:
    task = task_of("s", request='{"arguments": {}}')
    table.create(task)
    table.end(task.id, "s", DONE, time.time())
    found = table.find(task.id)
    assert found is not None
    assert found.request is None


def test_what_a_task_ended_with_may_be_any_text(table: TaskTable) -> None:
    task = task_of("s")
    table.create(task)
    assert table.end(task.id, "s", Outcome(error="{}", message="a\0b\ud800"), time.time())
    found = table.find(task.id)
    assert found is not None
    assert found.message == "a\\x00b\\ud800"


async def test_who_asks_when_the_time_of_a_task_has_come_is_not_answered_though_it_is_still_there(place: Path) -> None:
    async with opened_store(place) as store, running(store, ttl=0.001) as tasks:
        task = await tasks.start(ORDER, done)

        async def is_gone() -> bool:
            try:
                return not await tasks.get(task.id, "ada")
            except RunNotFoundError:
                return True

        await until(is_gone)
        assert await in_table(store, lambda table: table.find(task.id)) is not None


@pytest.mark.parametrize("task_id", ["\0" * 32, "\ud800", "", "A" * 32, "f" * 31])
async def test_what_was_never_given_out_as_an_id_does_not_reach_the_database(place: Path, task_id: str) -> None:
    async with opened_store(place) as store, running(store) as tasks:
        with pytest.raises(RunNotFoundError):
            await tasks.get(task_id, "ada")


@pytest.mark.parametrize(("attempts", "ends"), [(2, "completed"), (3, "failed")])
async def test_a_task_is_begun_three_times_at_most(place: Path, attempts: int, ends: str) -> None:
    async with opened_store(place) as store:
        leave_unlocked(place, "killed")
        task = task_of("killed", request="{}", attempts=attempts)
        await in_table(store, lambda table: table.create(task))
        async with running(store, lambda task: done) as tasks:
            await until(lambda: status_is_not_working(tasks, task))
            assert await status_of(tasks, task) == ends


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Around what happens while another process writes to the database."""
    with closing(sqlite3.connect(place / DATABASE, isolation_level=None, timeout=LIMIT)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def status_is_not_working(tasks: TaskService, task: StoredTask) -> bool:
    return await status_of(tasks, task) != WORKING


async def test_a_task_that_was_taken_over_meanwhile_is_ended_here_and_its_result_not_written_twice(
    place: Path,
) -> None:
    """As with a server that was stopped, and heard of by nobody for so long that another took it for gone."""
    ended = anyio.Event()
    begun = 0

    async def work(say: Say) -> Outcome:
        nonlocal begun
        begun += 1
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    async with opened_store(place) as store, running(store, lambda task: work) as tasks:
        task = await tasks.start(Order("tool", "ada", 600.0, "{}"), work)
        await until(lambda: begun)
        assert await in_table(store, lambda table: table.claim(task, "other", time.time()))
        await ended.wait()
        await tasks.idle()
        found = await in_table(store, lambda table: table.find(task.id))
        assert (found.status, found.server, begun) == (WORKING, "other", 1)
        assert await in_table(store, lambda table: table.end(task.id, "other", DONE, time.time()))
        assert (await tasks.get(task.id, "ada")).result == DONE.result


async def test_a_task_comes_back_to_the_server_it_was_taken_from_only_when_its_work_there_has_ended(
    place: Path,
) -> None:
    begun, may_end = 0, anyio.Event()

    async def work(say: Say) -> Outcome:
        nonlocal begun
        begun += 1
        with anyio.CancelScope(shield=True):
            await may_end.wait()
        await anyio.lowlevel.checkpoint()
        return DONE

    async with opened_store(place) as store, running(store, lambda task: work) as tasks:
        task = await tasks.start(Order("tool", "ada", 600.0, "{}"), work)
        await until(lambda: begun)
        leave_unlocked(place, "killed")
        try:
            assert await in_table(store, lambda table: table.claim(task, "killed", time.time()))
            assert await status_of(tasks, task) == WORKING
            assert (await in_table(store, lambda table: table.find(task.id))).server == "killed"
        finally:
            may_end.set()
        await tasks.idle()
        await until(lambda: status_is_not_working(tasks, task))
        assert begun == 2


async def test_a_cancel_that_comes_after_the_end_changes_nothing(place: Path) -> None:
    async with opened_store(place) as store, running(store) as tasks:
        task = await tasks.start(ORDER, done)
        await until(lambda: status_is_not_working(tasks, task))
        await tasks.cancel(await tasks.get(task.id, "ada"))
        await in_table(store, lambda table: table.ask_cancel(task.id))  # as one that raced with it
        found = await tasks.get(task.id, "ada")
        assert (found.status, found.result, found.is_cancelled) == ("completed", DONE.result, 0)


async def test_a_task_whose_end_could_not_be_recorded_is_failed_by_its_own_server(place: Path) -> None:
    async with opened_store(place) as store:
        long_ago = time.time() - 100
        task = task_of(store.server, created=long_ago, updated=long_ago)
        await in_table(store, lambda table: table.create(task))
        async with running(store) as tasks:
            await until(lambda: status_is_not_working(tasks, task))
            assert (await tasks.get(task.id, "ada")).message == service.NOT_RECORDED


async def test_a_task_that_cannot_be_recorded_does_not_begin(sqlite_place: Path) -> None:
    begun: list[str] = []

    async def work(say: Say) -> Outcome:
        begun.append("")
        return DONE

    async with opened_store(sqlite_place) as store, running(store) as tasks:
        first = await tasks.start(ORDER, done)
        await until(lambda: status_is_not_working(tasks, first))
        with locked(sqlite_place), pytest.raises(RecordsUnavailable):
            await tasks.start(ORDER, work)
        second = await tasks.start(ORDER, done)
        await until(lambda: status_is_not_working(tasks, second))
        assert not begun


async def test_a_result_waits_until_it_can_be_recorded(sqlite_place: Path) -> None:
    gate = anyio.Event()

    async def work(say: Say) -> Outcome:
        await gate.wait()
        return DONE

    async with opened_store(sqlite_place) as store, running(store) as tasks:
        task = await tasks.start(ORDER, work)
        with locked(sqlite_place):
            gate.set()
            await anyio.wait_all_tasks_blocked()  # its end has been asked for, ahead of this
            with pytest.raises(RecordsUnavailable):
                await in_table(store, lambda table: table.expire(0))
        await until(lambda: status_is_not_working(tasks, task))
        assert (await tasks.get(task.id, "ada")).result == DONE.result


async def test_a_store_that_hangs_does_not_keep_a_server_from_ending(
    sqlite_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "ACCESS_TIMEOUT", LIMIT)
    hangs, may_go_on = threading.Event(), threading.Event()

    def hang(database: object) -> None:
        hangs.set()
        may_go_on.wait(LIMIT)

    async def work(say: Say) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError

    async with opened_store(sqlite_place) as store, anyio.create_task_group() as group:
        try:
            async with running(store) as tasks:
                await tasks.start(ORDER, work)
                group.start_soon(store.access.run, hang)
                await until(hangs.is_set)
            assert not may_go_on.is_set()
        finally:
            may_go_on.set()


async def test_a_defect_that_lasts_is_logged_less_and_less_often(
    sqlite_place: Path, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, looks = anyio.Event(), 0

    def working_of(table: TaskTable, server: str) -> dict[str, bool]:
        nonlocal looks
        looks += 1
        raise ZeroDivisionError

    async def work(say: Say) -> Outcome:
        await may_end.wait()
        return DONE

    monkeypatch.setattr(service, "CANCEL_EVERY", 0.01)
    monkeypatch.setattr(TaskTable, "working_of", working_of)
    async with opened_store(sqlite_place) as store, running(store) as tasks:
        began = time.monotonic()
        task = await tasks.start(ORDER, work)
        await until(lambda: looks >= 6)
        assert time.monotonic() - began >= 0.01 * (1 + 2 + 4 + 8 + 16)
        may_end.set()
        await tasks.idle()
        assert await status_of(tasks, task) == "completed"
    assert log().count("while tasks were looked at") == looks


async def test_what_no_database_takes_ends_its_task_and_no_other(place: Path) -> None:
    """A task whose end cannot be written must not work for ever, nor take the others with it."""

    async def unencodable(say: Say) -> Outcome:
        return Outcome(result='"\ud800"')

    async def defect(say: Say) -> Outcome:
        raise ZeroDivisionError

    async with opened_store(place) as store, running(store) as tasks:
        odd, broken = await tasks.start(ORDER, unencodable), await tasks.start(ORDER, defect)
        await tasks.idle()
        other = await tasks.start(ORDER, done)
        await tasks.idle()
        found = [await tasks.get(task.id, "ada") for task in (odd, broken, other)]
    assert [task.status for task in found] == ["failed", "failed", "completed"]
    assert service.NOT_KEPT in (found[0].error or "")
    assert "Internal error" in (found[1].error or "")
