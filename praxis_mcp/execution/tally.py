"""What has been called, how it ended and how long it took: counted for as long as the process lives, and one line of
the log for each call."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.phases import PhaseClock
from praxis_mcp.errors import PraxisError
from praxis_mcp.execution.outcomes import outcome_of, refusal_of
from praxis_mcp.support.logs import logger
from praxis_mcp.support.text import as_field
from praxis_mcp.support.tracing import current_trace

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Seconds that durations are sorted by."""


@dataclass(slots=True)
class Histogram:
    """Durations: how many fell in each bucket (the last one is whatever is longer), and their sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Counted:
    """One call: the engine that carried it out, how it ended, its run, and where its time goes."""

    engine: str = ""
    outcome: str = "error"
    run_id: str = ""
    phases: PhaseClock = field(default_factory=PhaseClock)
    client: str = ""
    is_recorded: bool = False

    def ended(self, result: ExecutionResult) -> None:
        """It has a result."""
        self.engine, self.outcome, self.run_id = result.engine, outcome_of(result), result.run_id


class CallTally:
    """Counts calls of tools that exist, and logs each (`log_call`).

    Args:
        on_refused: is called with tool, caller, outcome, seconds and client of each call that left no record.

    Attributes:
        ended: calls by tool, engine (empty where none was reached, ``upstream:NAME`` for a republished tool), outcome
            (`outcome_of`, `refusal_of`).
        spilled: calls that another engine ran than the one that comes first, by tool, that engine and the first one.
        durations: of calls that an engine carried out, by engine.
        phase_durations: of their phases, by engine and phase.
        under_way: calls that have begun and not ended.
    """

    def __init__(self, on_refused: Callable[[str, str, str, float, str], None] = lambda *_: None) -> None:
        self._on_refused = on_refused
        self.ended: Counter[tuple[str, str, str]] = Counter()
        self.spilled: Counter[tuple[str, str, str]] = Counter()
        self.durations: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.phase_durations: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        self.under_way = 0

    @contextmanager
    def call(self, tool: str, caller: str = "", client: str = "") -> Iterator[Counted]:
        """Around one call."""
        trace = current_trace()
        counted = Counted(client=client, phases=PhaseClock(trace.enter if trace is not None else None))
        began = time.perf_counter()
        self.under_way += 1
        try:
            yield counted
        except PraxisError as exc:
            counted.outcome = refusal_of(exc)
            raise
        except anyio.get_cancelled_exc_class():
            counted.outcome = "cancelled"
            raise
        finally:
            counted.phases.close()
            self.under_way -= 1
            self.ended[tool, counted.engine, counted.outcome] += 1
            seconds = time.perf_counter() - began
            if counted.engine and counted.outcome != "cached":
                self.durations[counted.engine].add(seconds)
                for phase, spent in counted.phases.seconds.items():
                    self.phase_durations[counted.engine, phase].add(spent)
            if trace is not None:
                trace.called(tool, _about(counted, caller))
            log_call(tool, caller, counted.engine, counted.outcome, seconds, counted.run_id)
            if not counted.is_recorded:
                self._on_refused(tool, caller, counted.outcome, seconds, counted.client)

    def refuse(self, tool: str, caller: str, outcome: str, client: str = "") -> None:
        """A call was refused before it was known what to run: logged, and reported, but not counted.

        Args:
            tool: the name that was called.
            caller, client: who called.
            outcome: see `log_call`.
        """
        log_call(tool, caller, "", outcome, 0)
        self._on_refused(tool, caller, outcome, 0.0, client)


def _about(counted: Counted, caller: str) -> dict[str, str]:
    return {
        "praxis.engine": counted.engine,
        "praxis.outcome": counted.outcome,
        "praxis.run.id": counted.run_id,
        "enduser.id": caller,
    }


_MAX_LOGGED_NAME = 128


def log_call(tool: str, caller: str, engine: str, outcome: str, seconds: float, run_id: str = "") -> None:
    """Log how a call ended, at INFO; none of its arguments.

    Args:
        tool: the name that was called, whether or not there is such a tool.
        caller: who called; empty is anonymous.
        engine: what carried it out, ``upstream:NAME`` for a republished tool; empty where it did not get so far.
        outcome: see `CallTally`; or ``unknown_tool``, ``forbidden`` (the caller's scopes do not cover it), or
            ``held_back`` (an upstream's tool that waits for approval).
        seconds: from the call to its end.
        run_id: of its record; empty where it has none.
    """
    facts = {"tool": tool[:_MAX_LOGGED_NAME], "caller": caller[:_MAX_LOGGED_NAME], "engine": engine, "outcome": outcome}
    milliseconds = round(seconds * 1000, 1)
    line = " ".join(f"{name}={as_field(value)}" for name, value in facts.items())
    logger.bind(event="call", **facts, ms=milliseconds, run=run_id).info("call {} ms={}", line, milliseconds)
