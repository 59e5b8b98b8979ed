"""Where a call's time goes: the one clock that records, metrics, spans and results read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum

MOST_PHASES = 16
"""Phases of one call that are told apart; an engine of another package names its own."""


class Phase(StrEnum):
    """What a call is doing, in the order in which calls do it."""

    PLAN = "plan"
    """Its arguments are checked, and its plan is made."""
    QUEUE = "queue"
    """It waits for a place."""
    CHOOSE = "choose"
    """Its mounts are judged once more, and an engine is chosen."""
    START = "start"
    """The engine prepares what it runs in: pulls, mounts, a container, a connection."""
    RUN = "run"
    """The command runs, or the other server works."""
    COLLECT = "collect"
    """What it left is collected and kept."""
    CACHE = "cache"
    """It is answered by an earlier call's result; nothing runs."""


PhaseListener = Callable[[str | None, float], None]
"""Is called with a phase that begins, and when, by `time.perf_counter`; with None when the call has ended."""


class PhaseClock:
    """The phases of one call: each ends where the next one begins. A call that starts once more, because nothing had
    run, is in a phase twice; its seconds are added up.

    The code that begins a phase says so: the runner's, then the engine's. What breaks a call off leaves the phase that
    it was in as the last one.

    Args:
        listener: see `PhaseListener`. Must not block.
    """

    __slots__ = ("_began", "_current", "_listener", "_seconds")

    def __init__(self, listener: PhaseListener | None = None) -> None:
        self._listener = listener
        self._seconds: dict[str, float] = {}
        self._current: str | None = None
        self._began = 0.0

    @property
    def current(self) -> str | None:
        """The phase that the call is in; None before the first, and once it has ended."""
        return self._current

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase, in the order in which they began; of the one that lasts, up to now."""
        found = dict(self._seconds)
        if self._current is not None:
            found[self._current] += time.perf_counter() - self._began
        return found

    def enter(self, phase: str, at: float | None = None) -> None:
        """A phase begins, and the one before it ends. Nothing changes where the call is in that phase.

        Args:
            phase: one of `Phase`, or an engine's own.
            at: when, by `time.perf_counter`; None is now.
        """
        if phase == self._current or (phase not in self._seconds and len(self._seconds) >= MOST_PHASES):
            return
        at = time.perf_counter() if at is None else at
        self._end(at)
        self._seconds.setdefault(phase, 0.0)
        self._current, self._began = phase, at
        if self._listener is not None:
            self._listener(phase, at)

    def adopt(self, phases: Mapping[str, float]) -> None:
        """Take over the phases that an engine measured by itself: they began with the current one, one after another.

        Args:
            phases: seconds by phase. Nothing is taken over from an engine that used this clock.
        """
        if Phase.RUN in self._seconds:
            return
        at, now = self._began, time.perf_counter()
        for phase, seconds in phases.items():
            self.enter(phase, min(at, now))
            at += max(0.0, seconds)
        self.enter(Phase.COLLECT, min(at, now))

    def close(self) -> None:
        """The call has ended."""
        at = time.perf_counter()
        self._end(at)
        if self._current is not None and self._listener is not None:
            self._listener(None, at)
        self._current = None

    def _end(self, at: float) -> None:
        if self._current is not None:
            self._seconds[self._current] += max(0.0, at - self._began)
