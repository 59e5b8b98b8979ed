"""What one caller may take of a server that many share."""

from contextlib import ExitStack

import anyio
import pytest

from praxis_mcp.errors import QueueFull
from praxis_mcp.execution import admission as admission_module
from praxis_mcp.execution.admission import Admission, CallerLimits
from praxis_mcp.settings.sections import CallSettings


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


@pytest.mark.anyio
@pytest.mark.parametrize(("places", "queue", "run", "wait"), [(16, 64, 8, 32), (5, 3, 3, 2), (1, 1, 1, 1)])
async def test_of_a_callers_calls_half_of_the_places_run_half_of_the_queue_waits_and_one_more_is_refused(
    places: int, queue: int, run: int, wait: int
) -> None:
    settings = CallSettings(max_concurrency=places, max_queue=queue)
    limits, admission, release = CallerLimits(settings), Admission(settings), anyio.Event()
    refusals: list[str] = []

    async def call(tool: str) -> None:
        try:
            with limits.hold("ann", tool):
                async with admission.slot(tool, shares=limits.shares("ann")):
                    await release.wait()
        except QueueFull as exc:
            refusals.append(exc.message)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(run + wait + 1):
                tasks.start_soon(call, f"t{number}")
            await anyio.wait_all_tasks_blocked()
            assert (admission.running, admission.waiting, len(refusals)) == (run, wait, 1)
            release.set()
    assert (admission.running, admission.waiting) == (0, 0)


@pytest.mark.anyio
async def test_what_a_caller_has_waiting_keeps_no_other_from_the_same_tool() -> None:
    settings = CallSettings(max_concurrency=4)
    limits, admission = CallerLimits(settings), Admission(settings)

    async def hold(tool: str) -> None:
        async with admission.slot(tool, shares=limits.shares("ann")):
            await anyio.sleep_forever()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(hold, f"a{number}" if number < 2 else "b")
            await anyio.wait_all_tasks_blocked()
            async with admission.slot("b", shares=limits.shares("ben")):
                assert (admission.running, admission.waiting) == (3, 10)
            tasks.cancel_scope.cancel()
    assert (admission.running, admission.waiting) == (0, 0)


def test_where_the_settings_say_how_many_calls_a_caller_has_they_have_no_share() -> None:
    assert CallerLimits(CallSettings(max_per_caller=3)).shares("ann") == ()
    assert CallerLimits(CallSettings()).shares("") == ()


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


def test_a_caller_who_must_wait_learns_how_long() -> None:
    limits = CallerLimits(CallSettings(max_rate_per_caller=2), Clock())
    with limits.hold("ann", "t"):
        pass
    with pytest.raises(QueueFull) as caught, limits.hold("ann", "t"):
        pass
    assert "2 calls a minute" in caught.value.message
    assert "Try again in 30 s" in str(caught.value)


def test_callers_that_came_once_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "_MANY", 10)
    clock = Clock()
    limits = CallerLimits(CallSettings(max_rate_per_caller=60), clock)
    for number in range(100):
        clock.now += 2
        with limits.hold(f"caller {number}", "t"):
            pass
    assert limits.remembered <= 10
