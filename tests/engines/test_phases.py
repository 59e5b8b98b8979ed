"""The clock that says where a call's time goes."""

from __future__ import annotations

import time

from praxis_mcp.engines.phases import MOST_PHASES, Phase, PhaseClock


def test_each_phase_ends_where_the_next_begins() -> None:
    clock = PhaseClock()
    assert clock.current is None
    assert clock.seconds == {}
    now = time.perf_counter()
    clock.enter(Phase.QUEUE, now - 10)
    clock.enter(Phase.START, now - 7)
    clock.enter(Phase.START, now - 6)
    clock.enter(Phase.RUN, now - 5)
    assert clock.current == "run"
    assert list(clock.seconds) == ["queue", "start", "run"]
    assert round(clock.seconds["queue"]) == 3
    assert round(clock.seconds["start"]) == 2
    assert clock.seconds["run"] >= 5


def test_nothing_is_added_once_the_call_has_ended() -> None:
    clock = PhaseClock()
    clock.enter(Phase.RUN)
    clock.close()
    ended = clock.seconds
    assert clock.current is None
    clock.close()
    assert clock.seconds == ended


def test_a_call_that_starts_once_more_has_the_seconds_of_both_starts() -> None:
    clock = PhaseClock()
    now = time.perf_counter()
    clock.enter(Phase.START, now - 9)
    clock.enter(Phase.RUN, now - 6)
    clock.enter(Phase.START, now - 5)
    clock.enter(Phase.RUN, now - 3)
    clock.enter(Phase.COLLECT, now)
    seconds = clock.seconds
    assert (round(seconds["start"]), round(seconds["run"])) == (5, 4)


def test_phases_that_an_engine_measured_by_itself_are_taken_over() -> None:
    clock = PhaseClock()
    clock.enter(Phase.START, time.perf_counter() - 10)
    clock.adopt({"boot": 2.0, "run": 7.0})
    seconds = clock.seconds
    assert list(seconds) == ["start", "boot", "run", "collect"]
    assert [round(value) for value in seconds.values()] == [0, 2, 7, 1]
    clock.adopt({"run": 1000.0, "later": 3.0})
    assert list(clock.seconds) == ["start", "boot", "run", "collect"]


def test_an_engine_that_claims_more_time_than_has_passed_gets_what_has_passed() -> None:
    clock = PhaseClock()
    clock.enter(Phase.START, time.perf_counter() - 5)
    clock.adopt({"run": 1e9, "collect": -1.0})
    assert 5 <= sum(clock.seconds.values()) < 1000


def test_phases_are_bounded_whatever_an_engine_names_them() -> None:
    clock = PhaseClock()
    for number in range(10 * MOST_PHASES):
        clock.enter(f"phase {number}")
    assert len(clock.seconds) == MOST_PHASES
