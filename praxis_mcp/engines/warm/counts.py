"""What a pool of things that wait for calls has done, and has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ToolMetrics:
    """What a pool has done for one tool, and has for it.

    Attributes:
        hits, misses: calls that found one waiting, and those that did not.
        made: attempts to make one that succeeded.
        fill_seconds: how long it takes to make one, averaged over the last few.
        waiting: how many wait now.
    """

    hits: int = 0
    misses: int = 0
    made: int = 0
    fill_seconds: float = 0.0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class PoolMetrics(ToolMetrics):
    """What a pool has done, and has.

    Attributes:
        failed: attempts to make one that did not succeed.
        discarded: how many were removed without ever being called.
        tools: what of that was for which tool, those that were called.
    """

    failed: int = 0
    discarded: int = 0
    tools: Mapping[str, ToolMetrics] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """A `ToolMetrics` that is counted."""

    hits: int = 0
    misses: int = 0
    made: int = 0
    fill_seconds: float = 0.0

    def add_call(self, *, found: bool) -> None:
        self.hits += found
        self.misses += not found

    def add_made(self, seconds: float) -> None:
        self.fill_seconds = seconds if not self.made else self.fill_seconds * 0.7 + seconds * 0.3
        self.made += 1
