"""The way to a pod's port, cut at each byte that matters of a whole call, and some of the others: it is run once, or it
is said that it may have run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.errors import ExecutionError
from praxis_mcp.support.praxis_init import CHANNEL_SECRET_BYTES
from tests.engines.kubernetes.doubled import Doubled, doubled
from tests.kubernetes_double import Cut, DoublePod, Traffic

pytestmark = [pytest.mark.anyio, pytest.mark.native, pytest.mark.timeout(600)]

AT_ONCE = 6
"""Calls."""
WITHIN = 60.0
"""Seconds for one of them."""
SECRET = 2 + 4 + 1 + CHANNEL_SECRET_BYTES
"""Bytes of the message that proves who calls: head, mask, stream and secret."""


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        output: its output; None: it failed.
        error: why.
        runs: how often its tool ran.
        ways: what was carried to its pods, by websocket.
    """

    output: str | None
    error: ExecutionError | None
    runs: int
    ways: list[Traffic]

    @property
    def pods(self) -> int:
        """How many it took."""
        return len({way.pod for way in self.ways})


async def call(on: Doubled, place: Path, name: str) -> Outcome:
    """One call of a tool that notes that it runs."""
    mark = place / name
    command = ["sh", "-c", f"echo ran >>{mark}; echo hello"]
    contract = ToolContract.create_dagger_tool(name, "busybox:1.36", command)
    output, error = None, None
    try:
        output = await on.call(contract)
    except ExecutionError as exc:
        error = exc
    ways = [way for way in on.double.forwarded if way.pod.startswith(f"praxis-mcp-{name}-")]
    return Outcome(output, error, mark.read_text().count("ran") if mark.exists() else 0, ways)


async def calls_with(place: Path, cuts: Iterable[Cut]) -> dict[Cut, Outcome]:
    """A call for each cut, of the first websocket at which praxis-init listens; and what became of it. The few calls
    whose praxis-init began to listen just behind the look at it were not cut, and are left out."""
    found: dict[Cut, Outcome] = {}
    names = {cut: f"t{number}" for number, cut in enumerate(cuts)}
    due = {name: cut for cut, name in names.items()}
    limit = anyio.Semaphore(AT_ONCE)

    def cut_of(pod: DoublePod) -> Cut | None:
        return due.pop(pod.name.split("-")[2], None) if pod.listens() else None

    async with doubled(place) as on:
        on.double.on_forward = cut_of

        async def run(cut: Cut) -> None:
            async with limit:
                with anyio.fail_after(WITHIN):
                    outcome = await call(on, place, names[cut])
            if names[cut] not in due or cut == Cut():
                found[cut] = outcome

        async with anyio.create_task_group() as tasks:
            for cut in names:
                tasks.start_soon(run, cut)
    assert len(found) > len(names) / 2
    return found


async def whole(place: Path) -> Traffic:
    """What a call carries over a websocket that is not cut."""
    (outcome,) = (await calls_with(place, [Cut()])).values()
    assert (outcome.output, outcome.runs) == ("hello\n", 1)
    way = outcome.ways[-1]
    assert 0 < SECRET < way.up
    assert 0 < way.hello < way.down
    return way


def sometimes_reset(number: int) -> bool:
    """By FIN, or every third by RST."""
    return number % 3 == 0


def ran_once_or_may_have(outcome: Outcome) -> bool:
    """Whether it is one of the two that may be after START: whole, or said to be uncertain."""
    assert outcome.pods == 1, outcome
    if outcome.error is None:
        return (outcome.output, outcome.runs) == ("hello\n", 1)
    assert outcome.error.remedy
    return "It may have run" in outcome.error.message and "not repeated" in outcome.error.message and outcome.runs <= 1


async def test_a_way_that_is_lost_before_praxis_init_has_said_hello_is_replaced_and_the_call_succeeds(
    tmp_path: Path,
) -> None:
    (tmp_path / "whole").mkdir()
    way = await whole(tmp_path / "whole")
    # Of the answer's head, which comes before the ports' numbers and the hello, not every byte.
    numbers = {*range(0, way.hello, 9), *range(max(0, way.hello - 40), way.hello)}
    cuts = [Cut(down=number, resets=sometimes_reset(number)) for number in sorted(numbers)]
    cuts += [Cut(up=number, resets=sometimes_reset(number)) for number in range(SECRET)]
    for cut, outcome in (await calls_with(tmp_path, cuts)).items():
        assert (outcome.output, outcome.error, outcome.runs) == ("hello\n", None, 1), cut
        assert outcome.ways[0].is_cut or len(outcome.ways) > 1, cut


async def test_a_way_that_is_lost_with_the_answer_fails_the_call_as_one_that_may_have_run(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    way = await whole(tmp_path / "whole")
    cuts = [Cut(down=number, resets=sometimes_reset(number)) for number in range(way.hello, way.down)]
    outcomes = await calls_with(tmp_path, cuts)
    assert not [(cut, outcome) for cut, outcome in outcomes.items() if not ran_once_or_may_have(outcome)]
    assert {outcome.error is None for outcome in outcomes.values()} == {True, False}


async def test_a_way_that_is_lost_within_the_call_fails_it_unless_another_pod_can_run_it(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    way = await whole(tmp_path / "whole")
    # Of the filter, which is most of a call, not every byte.
    numbers = {*range(SECRET, SECRET + 50), *range(SECRET + 50, way.up - 100, 19), *range(way.up - 100, way.up)}
    cuts = [Cut(up=number, resets=sometimes_reset(number)) for number in sorted(numbers)]
    outcomes = await calls_with(tmp_path, cuts)
    for cut, outcome in outcomes.items():
        if outcome.pods > 1:  # it was lost before the call was sent
            assert (outcome.output, outcome.runs) == ("hello\n", 1), cut
        else:
            assert ran_once_or_may_have(outcome), (cut, outcome)
        assert cut.up is not None
        if cut.up < way.up - 100:
            assert outcome.runs == (outcome.error is None), "the call had not come whole"
    assert {outcome.error is None for outcome in outcomes.values()} == {True, False}
