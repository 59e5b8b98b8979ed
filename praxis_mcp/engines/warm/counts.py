"""What a pool of things that wait for their calls has done, and has: of all, and of each tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ToolMetrics:
    """What a pool has done for one tool, and has for it; fields as in `PoolMetrics`."""

    hits: int = 0
    misses: int = 0
    waiting: int = 0
    made: int = 0
    fill_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolMetrics:
    """What a pool has done, and has.

    Attributes:
        hits, misses: calls that found one waiting, and those that did not.
        waiting: how many wait now.
        made, failed: attempts to make one that succeeded, and that did not.
        discarded: how many were removed without ever being called.
        fill_seconds: how long it takes to make one, averaged over the last few.
        tools: what of that was for which tool, those that were called.
    """

    hits: int = 0
    misses: int = 0
    waiting: int = 0
    made: int = 0
    failed: int = 0
    discarded: int = 0
    fill_seconds: float = 0.0
    tools: Mapping[str, ToolMetrics] = field(default_factory=dict)


@dataclass(slots=True)
class _Counts:
    hits: int = 0
    misses: int = 0
    made: int = 0
    fill_seconds: float = 0.0


class PoolCounts:
    """Counts for one pool.

    Attributes:
        failed, discarded: see `PoolMetrics`.
    """

    def __init__(self) -> None:
        self.failed = self.discarded = 0
        self._all = _Counts()
        self._tools: dict[str, _Counts] = {}

    @property
    def fill_seconds(self) -> float:
        """See `PoolMetrics`."""
        return self._all.fill_seconds

    def called(self, tool: str, *, met: bool) -> None:
        """A call of a tool, and whether it met one that waited."""
        for counts in (self._all, self._of(tool)):
            counts.hits += met
            counts.misses += not met

    def made(self, tool: str, seconds: float) -> None:
        """One was made for a tool."""
        for counts in (self._all, self._of(tool)):
            counts.fill_seconds = seconds if not counts.made else counts.fill_seconds * 0.7 + seconds * 0.3
            counts.made += 1

    def metrics(self, waiting: Mapping[str, int]) -> PoolMetrics:
        """All of it; `waiting` says how many wait for which tool."""
        tools = {
            name: ToolMetrics(each.hits, each.misses, waiting.get(name, 0), each.made, each.fill_seconds)
            for name, each in self._tools.items()
        }
        whole = self._all
        return PoolMetrics(
            hits=whole.hits,
            misses=whole.misses,
            waiting=sum(waiting.values()),
            made=whole.made,
            failed=self.failed,
            discarded=self.discarded,
            fill_seconds=whole.fill_seconds,
            tools=tools,
        )

    def _of(self, tool: str) -> _Counts:
        return self._tools.setdefault(tool, _Counts())
