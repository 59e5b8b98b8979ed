"""How many calls run at once, and how many may wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from praxis_mcp.errors import QueueFull
from praxis_mcp.settings import CallSettings


class Admission:
    """Limits of the whole server, of each group and of each tool, with one bounded queue.

    A call takes its tool's slot, then its group's, before a global one, so that a burst of one tool waits on that
    tool's limit without holding back the others. A group (the tools of one other server) has half of the places, to
    run in and to wait in: when it hangs, all else goes on.
    """

    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings
        self._all = anyio.CapacityLimiter(settings.max_concurrency)
        self._tools: dict[str, anyio.CapacityLimiter] = {}
        self._groups: dict[str, anyio.CapacityLimiter] = {}
        self._waiting = 0
        self._waiting_of: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Calls that run now."""
        return self._all.borrowed_tokens

    @property
    def waiting(self) -> int:
        """Calls that wait now."""
        return self._waiting

    @asynccontextmanager
    async def slot(self, tool: str, limit: int | None = None, group: str = "") -> AsyncIterator[None]:
        """Hold a place for one call.

        Args:
            tool: the tool's name.
            limit: how many of its calls may run at once; None is the settings' own.
            group: what it shares half of the places with; empty is nothing.

        Raises:
            QueueFull: it would have to wait, and too many wait already.
        """
        limit = limit or self._settings.max_concurrency_per_tool
        own = self._tools.setdefault(tool, anyio.CapacityLimiter(limit))
        own.total_tokens = limit
        needed = [own, self._all]
        if group:
            needed.insert(1, self._groups.setdefault(group, anyio.CapacityLimiter(_half(self._all.total_tokens))))
        if any(limiter.available_tokens < 1 for limiter in needed):
            self._may_wait(tool, group)
        call = object()  # one borrower a call: a task may hold several
        held: list[anyio.CapacityLimiter] = []
        self._waiting += 1
        self._waiting_of[group] += 1
        try:
            try:
                for limiter in needed:
                    await limiter.acquire_on_behalf_of(call)
                    held.append(limiter)
            finally:
                self._waiting -= 1
                self._waiting_of[group] -= 1
            yield
        finally:
            for limiter in reversed(held):
                limiter.release_on_behalf_of(call)

    def _may_wait(self, tool: str, group: str) -> None:
        most = self._settings.max_queue
        if self._waiting >= most:
            raise QueueFull(
                f"{tool} was not started: {self.running} calls are running and {self._waiting} waiting.",
                remedy="Try again when some have ended, or raise calls.max_concurrency or calls.max_queue.",
            )
        if group and self._waiting_of[group] >= most // 2:
            raise QueueFull(
                f"{tool} was not started: {self._waiting_of[group]} calls of {group} wait, which is half of the queue.",
                remedy="Try again when some have ended, or raise calls.max_concurrency or calls.max_queue.",
            )


def _half(places: float) -> int:
    return max(1, int(places) // 2)
