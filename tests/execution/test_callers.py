"""What one caller may take of a server that many share."""

from contextlib import ExitStack

import pytest

from praxis_mcp.errors import QueueFull
from praxis_mcp.execution import callers
from praxis_mcp.execution.callers import CallerLimits
from praxis_mcp.settings import CallSettings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_place_is_free_again_once_its_call_has_ended_however_it_ended() -> None:
    limits = CallerLimits(CallSettings(max_per_caller=1))
    with pytest.raises(ZeroDivisionError), limits.hold("ann", "t"):
        raise ZeroDivisionError
    with limits.hold("ann", "t"):
        with pytest.raises(QueueFull, match="1 of your calls"), limits.hold("ann", "t"):
            pass
        with limits.hold("ben", "t"):
            pass
    with limits.hold("ann", "t"):
        pass


def test_a_caller_has_half_of_the_places_unless_the_settings_say() -> None:
    limits = CallerLimits(CallSettings(max_concurrency=6))
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(limits.hold("ann", "t"))
        with pytest.raises(QueueFull, match="3 of your calls"), limits.hold("ann", "t"):
            pass
        held.enter_context(limits.hold("ben", "t"))


def test_the_anonymous_caller_has_the_limits_of_the_whole_server_only() -> None:
    limits = CallerLimits(CallSettings(max_per_caller=1, max_rate_per_caller=1))
    with ExitStack() as held:
        for _ in range(50):
            held.enter_context(limits.hold("", "t"))


def test_a_burst_is_ten_seconds_worth_and_then_calls_come_at_the_rate() -> None:
    clock = Clock()
    limits = CallerLimits(CallSettings(max_rate_per_caller=60), clock)

    def calls() -> int:
        done = 0
        while True:
            try:
                with limits.hold("ann", "t"):
                    done += 1
            except QueueFull:
                return done

    assert calls() == 10
    clock.now += 3
    assert calls() == 3
    clock.now += 3600
    assert calls() == 10


def test_who_must_wait_is_told_how_long() -> None:
    limits = CallerLimits(CallSettings(max_rate_per_caller=2), Clock())
    with limits.hold("ann", "t"):
        pass
    with pytest.raises(QueueFull) as caught, limits.hold("ann", "t"):
        pass
    assert "2 calls a minute" in caught.value.message
    assert "Try again in 30 s" in str(caught.value)


def test_callers_that_came_once_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "_MANY", 10)
    clock = Clock()
    limits = CallerLimits(CallSettings(max_rate_per_caller=60), clock)
    for number in range(100):
        clock.now += 2
        with limits.hold(f"caller {number}", "t"):
            pass
    assert len(limits._allowances) <= 10
