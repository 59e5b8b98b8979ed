"""What waits for calls of one key, and how many should: by the demand of late."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from praxis_mcp.settings.model import WarmSettings

FORGET_AFTER = 30.0
"""Seconds in which the demand of a moment fades to a third."""


class WarmItem(Protocol):
    """One that waits for its only call."""

    def is_fresh(self) -> bool:
        """Whether it can still take one; looks, and does not wait."""
        ...

    async def discard(self) -> None:
        """End and remove it, whatever its state; bounded in time, raises nothing of its own."""
        ...


K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=WarmItem)


@dataclass(slots=True)
class Shelf(Generic[K, T]):
    """What there is for one key, and how much it is in demand."""

    key: K
    items: deque[T] = field(default_factory=deque)
    running: int = 0
    peak: float = 0.0
    rate: float = 0.0
    touched: float = 0.0
    failures: int = 0
    retry_at: float = 0.0

    def begin(self, now: float) -> None:
        """A call begins."""
        fading = math.exp(-(now - self.touched) / FORGET_AFTER)
        self.running += 1
        self.peak = max(self.running, self.peak * fading)
        self.rate = self.rate * fading + 1 / FORGET_AFTER
        self.touched = now

    def wanted(self, now: float, fill_seconds: float, settings: WarmSettings) -> int:
        """How many should wait: as many as calls came at once, or as come while one is made (Little's law)."""
        if now - self.touched >= settings.idle_seconds and not self.running:
            return 0
        fading = math.exp(-(now - self.touched) / FORGET_AFTER)
        by_demand = math.ceil(max(self.peak * fading - 0.5, self.rate * fading * fill_seconds))
        return min(settings.max_per_tool, max(1, by_demand))
