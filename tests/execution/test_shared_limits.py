"""Limits per caller where several servers have one store: as many calls as the settings say on all of them together."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from praxis_mcp.errors import QueueFull, RecordsUnavailable
from praxis_mcp.execution import admission, shared_limits
from praxis_mcp.execution.admission import CallerLimits, rate_of
from praxis_mcp.execution.records import caller_calls
from praxis_mcp.execution.records.caller_calls import Claim, Grant, Rate
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.execution.shared_limits import SharedLimits
from praxis_mcp.settings.sections import CallSettings
from tests.execution.test_record_store import log
from tests.kit.postgres import PostgresServer, running_server
from tests.kit.records import DATABASES, URLS, database_in, records_place, settings_of
from tests.kit.until import until

pytestmark = pytest.mark.anyio
__all__ = ["log"]

IMPATIENT, PATIENT = 0.3, 60.0
WAITS = (*admission.AGAIN_AFTER, 1.0, 5.0, 20.0)
"""Seconds between tries that are enough on a busy machine, too."""


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with records_place(tmp_path, request.param) as place:
        place.mkdir()
        yield place


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, its store is not away."""
    monkeypatch.setattr(shared_limits, "ANSWERED_WITHIN", PATIENT)
    monkeypatch.setattr(shared_limits, "OPENED_WITHIN", PATIENT)


@pytest.fixture
def servers() -> Iterator[Callable[..., CallerLimits]]:
    """Makes what a server has of its callers, each with a store of its own on the same place."""
    with ExitStack() as opened:

        def serve(place: Path, scope: str = "", **settings: Any) -> CallerLimits:
            limits = CallSettings(**settings)
            store = RecordStore(place, settings_of(place))
            store.prepare()
            opened.callback(store.close)
            shared = SharedLimits(store, limits.max_per_caller, rate_of(limits), scope)
            return CallerLimits(limits, shared=shared)

        yield serve


@pytest.fixture
def database(place: Path) -> Iterator[SqlDatabase]:
    opened = database_in(place)
    yield opened
    opened.close()


def claim(held: int, wanted: int, server: str = "one", *, most: int | None = 3, rate: Rate | None = None) -> Claim:
    return Claim("ann", server, held, wanted, most, rate)


async def call(limits: CallerLimits, caller: str = "ann") -> str:
    """What a call that ends at once comes to."""
    try:
        with limits.hold(caller, "t") as may_begin:
            await may_begin()
            return "ok"
    except QueueFull as exc:
        return str(exc)


def test_of_what_is_wanted_as_much_is_granted_as_all_servers_together_may_have(database: SqlDatabase) -> None:
    assert database.claim_calls(claim(0, 2)) == Grant(2)
    assert database.claim_calls(claim(0, 2, "two")) == Grant(1)
    assert database.claim_calls(claim(1, 2, "two")) == Grant(0)
    assert database.claim_calls(claim(0, 0)) == Grant(0), "what one has given back"
    assert database.claim_calls(claim(1, 2, "two")) == Grant(2)
    assert database.claim_calls(Claim("ben", "one", 0, 9, 3, None)) == Grant(3)


def test_what_a_server_says_that_it_has_counts_even_beyond_the_limit(database: SqlDatabase) -> None:
    assert database.claim_calls(claim(5, 1)) == Grant(0)
    assert database.claim_calls(claim(0, 1, "two")) == Grant(0)
    assert database.claim_calls(claim(2, 0)) == Grant(0)
    assert database.claim_calls(claim(0, 1, "two")) == Grant(1)


def test_a_server_that_says_nothing_any_more_has_nothing(database: SqlDatabase) -> None:
    assert database.claim_calls(claim(0, 3)) == Grant(3)
    count_until(database, time.time() - 1)
    assert database.claim_calls(claim(0, 1, "two")) == Grant(1)
    # By a clock that was set back, it would have it for long.
    assert database.claim_calls(claim(0, 2)) == Grant(2)
    count_until(database, time.time() + caller_calls.LEASE + 3600)
    assert database.claim_calls(claim(0, 3, "three")) == Grant(3)


def holders(database: SqlDatabase) -> dict[str, tuple[int, float]]:
    """What each server has of the one caller there is, and until when that counts."""
    ((text,),) = database.read("SELECT CAST(holders AS TEXT) FROM caller_calls")
    return json.loads(text)


def count_until(database: SqlDatabase, until: float) -> None:
    """Have everything that is held count until then."""
    changed = json.dumps({server: [calls, until] for server, (calls, _) in holders(database).items()})
    kind = "JSONB" if database.heartbeat < math.inf else "TEXT"
    with database.transaction() as run_sql:
        run_sql(f"UPDATE caller_calls SET holders = CAST(? AS {kind})", (changed,))


def test_a_server_that_is_known_to_be_gone_has_nothing_from_then_on(database: SqlDatabase) -> None:
    assert database.claim_calls(claim(0, 2)) == Grant(2)
    assert database.claim_calls(claim(0, 1, "two")) == Grant(1)
    database.forget_holder("one")
    assert holders(database).keys() == {"two"}
    database.close_runs_of("two", time.time())
    assert holders(database) == {}


def test_a_rate_holds_for_all_servers_together_and_says_what_is_left(database: SqlDatabase) -> None:
    slow = Rate(each=0.001, most=3.0)
    first = database.claim_calls(claim(0, 2, most=None, rate=slow))
    second = database.claim_calls(claim(0, 2, "two", most=None, rate=slow))
    assert (first.calls, second.calls) == (2, 1)
    assert 1 <= first.left < 1.1
    assert 0 <= second.left < 0.1
    quick = Rate(each=1000.0, most=3.0)
    time.sleep(0.02)
    assert database.claim_calls(claim(0, 9, most=None, rate=quick)).calls == 3


def test_what_one_limit_refuses_is_not_taken_from_the_other(database: SqlDatabase) -> None:
    slow = Rate(each=0.001, most=4.0)
    assert database.claim_calls(claim(0, 9, most=1, rate=slow)).calls == 1
    assert database.claim_calls(claim(1, 9, most=1, rate=slow)).calls == 0
    assert database.claim_calls(claim(0, 9, most=9, rate=slow)).calls == 3


@pytest.mark.parametrize(
    "holders", ["", "[]", "1", '{"one": 1}', '{"one": ["x", 1]}', '{"one":[1', '{"one":[Infinity,1]}']
)
def test_what_somebody_has_changed_in_the_database_keeps_no_call_from_being_counted(
    tmp_path: Path, holders: str
) -> None:
    database = database_in(tmp_path)
    database.claim_calls(claim(0, 1))
    with database.transaction() as run_sql:
        run_sql("UPDATE caller_calls SET holders = ?", (holders,))
    database.forget_holder("one")
    assert database.claim_calls(claim(0, 2, "two")) == Grant(2)
    assert database.claim_calls(claim(0, 2)) == Grant(1)
    database.close()


def test_callers_who_have_not_called_for_long_are_forgotten(database: SqlDatabase) -> None:
    database.claim_calls(claim(0, 1))
    database.forget_callers(time.time() + caller_calls.FORGOTTEN / 2)
    assert database.read("SELECT count(*) FROM caller_calls") == [(1,)]
    database.forget_callers(time.time() + caller_calls.FORGOTTEN * 2)
    assert database.read("SELECT count(*) FROM caller_calls") == [(0,)]


def test_many_servers_at_once_never_have_more_together(place: Path) -> None:
    database_in(place).close()
    under_way = most_seen = 0
    counting = threading.Lock()

    def serve(number: int) -> None:
        nonlocal under_way, most_seen
        database = database_in(place)
        for _ in range(25):
            granted = retried(partial(database.claim_calls, claim(0, 2, f"s{number}"))).calls
            with counting:
                under_way += granted
                most_seen = max(most_seen, under_way)
                under_way -= granted
            retried(partial(database.claim_calls, claim(0, 0, f"s{number}")))
        database.close()

    def retried(work: Callable[[], Grant]) -> Grant:
        while True:
            try:
                return work()
            except RecordsUnavailable:  # SQLite was held by the others for too long
                time.sleep(0.01)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(serve, range(6)))
    assert 1 <= most_seen <= 3


@pytest.mark.usefixtures("patient")
async def test_two_servers_together_have_no_more_calls_of_a_caller_than_one(
    place: Path, servers: Callable[..., CallerLimits], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = servers(place, max_per_caller=3), servers(place, max_per_caller=3)
    with ExitStack() as held:
        for limits in (one, two, one):
            await held.enter_context(limits.hold("ann", "t"))()
        for limits in (one, two):
            assert "3 of your calls are running or waiting" in await call(limits)
            assert await call(limits, "ben") == "ok"
    # What ended on one is free on the other, as soon as a busy machine lets it say so.
    monkeypatch.setattr(admission, "AGAIN_AFTER", WAITS)
    for limits in (two, one, two, one):
        assert await call(limits) == "ok"


@pytest.mark.usefixtures("patient")
async def test_a_client_that_is_faster_than_the_word_of_its_last_calls_end_is_not_refused(
    place: Path, servers: Callable[..., CallerLimits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "AGAIN_AFTER", WAITS)
    pair = servers(place, max_per_caller=1), servers(place, max_per_caller=1)
    for number in range(40):
        assert await call(pair[number % 2]) == "ok"


@pytest.mark.usefixtures("patient")
async def test_a_burst_over_both_servers_gets_all_places_and_no_more(
    place: Path, servers: Callable[..., CallerLimits]
) -> None:
    pair = servers(place, max_per_caller=5), servers(place, max_per_caller=5)
    release, came = anyio.Event(), [0, 0]

    async def hold(limits: CallerLimits) -> None:
        try:
            with limits.hold("ann", "t") as may_begin:
                await may_begin()
                came[0] += 1
                await release.wait()
        except QueueFull:
            came[1] += 1

    with anyio.fail_after(PATIENT * 2):
        async with anyio.create_task_group() as tasks:
            for number in range(16):
                tasks.start_soon(hold, pair[number % 2])
            await until(lambda: sum(came) == 16)
            assert came == [5, 11]
            release.set()


@pytest.mark.usefixtures("patient")
async def test_a_call_that_is_cancelled_while_it_waits_to_be_counted_leaves_its_place(
    place: Path, servers: Callable[..., CallerLimits]
) -> None:
    one, two = servers(place, max_per_caller=2), servers(place, max_per_caller=2)

    async def begin() -> None:
        with one.hold("ann", "t") as may_begin:
            await may_begin()
            await anyio.sleep_forever()

    for wait in (0.0, 0.001, 0.01):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(begin)
            tasks.start_soon(begin)
            await anyio.sleep(wait)
            tasks.cancel_scope.cancel()
    with ExitStack() as held:
        for _ in range(2):
            await until(partial(taken, two, held))


async def taken(limits: CallerLimits, held: ExitStack) -> bool:
    with ExitStack() as tried:
        try:
            await tried.enter_context(limits.hold("ann", "t"))()
        except QueueFull:
            return False
        held.push(tried.pop_all())
        return True


@pytest.mark.usefixtures("patient")
async def test_a_rate_is_spent_on_all_servers_and_says_when_to_come_again(
    place: Path, servers: Callable[..., CallerLimits]
) -> None:
    one, two = (servers(place, max_rate_per_caller=12) for _ in range(2))
    assert [await call(limits, "ben") for limits in (one, two)] == ["ok"] * 2, "both have the store open"
    assert [await call(limits) for limits in (one, two)] == ["ok"] * 2
    said = await call(one)  # the next one is allowed 5 s after
    assert "12 calls a minute" in said
    assert "Try again in " in said


@pytest.mark.usefixtures("patient")
async def test_servers_of_other_projects_on_the_same_store_count_by_themselves(
    place: Path, servers: Callable[..., CallerLimits]
) -> None:
    one, two = servers(place, "/a\n", max_per_caller=1), servers(place, "/b\n", max_per_caller=1)
    with ExitStack() as held:
        await held.enter_context(one.hold("ann", "t"))()
        assert await call(two) == "ok"


async def test_what_is_held_is_renewed_for_as_long_as_it_is(
    place: Path, servers: Callable[..., CallerLimits], monkeypatch: pytest.MonkeyPatch, patient: None
) -> None:
    monkeypatch.setattr(shared_limits, "CLAIM_EVERY", 0.05)
    limits = servers(place, max_per_caller=1)
    database = database_in(place)

    def ends() -> float:
        ((_, at),) = holders(database).values()
        return at

    with ExitStack() as held:
        await held.enter_context(limits.hold("ann", "t"))()
        first = ends()
        await until(lambda: ends() > first)
    await until(lambda: holders(database) == {})
    database.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """One that tests may stop."""
    with running_server() as server:
        yield server


@pytest.fixture
def own_place(tmp_path: Path, own_server: PostgresServer) -> Iterator[Path]:
    place = tmp_path / "records"
    URLS[place] = own_server.database()
    database_in(place).close()  # with its tables
    yield place
    del URLS[place]


@pytest.mark.postgres
async def test_while_the_database_is_away_each_server_keeps_the_limits_by_itself_and_then_both_together(
    own_place: Path,
    own_server: PostgresServer,
    servers: Callable[..., CallerLimits],
    log: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    patient: None,
) -> None:
    monkeypatch.setattr(shared_limits, "CLAIM_EVERY", 0.2)
    one, two = servers(own_place, max_per_caller=2), servers(own_place, max_per_caller=2)
    assert one.shared is not None
    assert two.shared is not None
    with ExitStack() as held:
        await held.enter_context(one.hold("ann", "t"))()
        await held.enter_context(two.hold("ann", "t"))()
        await anyio.to_thread.run_sync(own_server.stop)
        try:
            for limits in (one, two):
                await held.enter_context(limits.hold("ann", "t"))()
                assert "2 of your calls" in await call(limits), "its own two"
                assert await call(limits, "ben") == "ok"
            assert one.shared.is_away
            assert two.shared.is_away
        finally:
            await anyio.to_thread.run_sync(own_server.start)
        await until(lambda: not one.shared.is_away and not two.shared.is_away)  # pyright: ignore[reportOptionalMemberAccess]
        assert log().count("limits per caller hold for this server alone for now") == 2
        assert log().count("limits per caller hold for all servers together again") == 2
        third = servers(own_place, max_per_caller=4)

        async def is_full() -> bool:
            return "4 of your calls" in await call(third)

        await until(is_full)  # what both have begun meanwhile has been said, though the database forgot everything
    await until(partial(taken_again, third))


async def taken_again(limits: CallerLimits) -> bool:
    return await call(limits) == "ok"


@pytest.mark.postgres
async def test_a_database_that_hangs_keeps_one_call_waiting_and_no_other(
    own_place: Path,
    own_server: PostgresServer,
    servers: Callable[..., CallerLimits],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_limits, "OPENED_WITHIN", PATIENT)
    monkeypatch.setattr(shared_limits, "ANSWERED_WITHIN", PATIENT)
    monkeypatch.setattr(shared_limits, "MOST_UNSAID", 20)
    limits = servers(own_place, max_per_caller=2)
    assert await call(limits) == "ok"
    monkeypatch.setattr(shared_limits, "ANSWERED_WITHIN", IMPATIENT)
    monkeypatch.setattr(shared_limits, "CLAIM_EVERY", 0.2)
    own_server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert [await call(limits, f"caller {number}") for number in range(200)] == ["ok"] * 200
        assert time.monotonic() - began < 200 * IMPATIENT / 2
    finally:
        own_server.signal(signal.SIGCONT)
    assert limits.shared is not None
    await until(lambda: not limits.shared.is_away)  # pyright: ignore[reportOptionalMemberAccess]
    assert await call(limits) == "ok"
    found = own_server.sql("SELECT count(*) FROM praxis_mcp.caller_calls", URLS[own_place])
    assert 0 < int(str(found[0][0])) < 30, "of 200 callers, no more are held in memory until the store is back"


async def test_a_store_that_cannot_be_opened_leaves_a_server_its_own_count(
    tmp_path: Path, servers: Callable[..., CallerLimits], log: Callable[[], str]
) -> None:
    place = tmp_path / "records"
    limits = servers(place, max_per_caller=1)
    (place / "runs.db").write_text("this is no database " * 100)
    with ExitStack() as held:
        await held.enter_context(limits.hold("ann", "t"))()
        assert "1 of your calls is running" in await call(limits)
    assert await call(limits) == "ok"
    assert log().count("limits per caller hold for this server alone for now") == 1
