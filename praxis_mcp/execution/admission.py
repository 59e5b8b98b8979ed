"""How many calls run at once, and how many may wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from praxis_mcp.errors import QueueFull
from praxis_mcp.settings import CallSettings


class Admission:
    """Global and per-tool limits with one bounded queue.

    A call takes its tool's slot before a global one, so that a burst of one tool waits on that tool's limit without
    holding back the others.
    """

    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings
        self._all = anyio.CapacityLimiter(settings.max_concurrency)
        self._tools: dict[str, anyio.CapacityLimiter] = {}
        self._waiting = 0

    @property
    def running(self) -> int:
        """Calls that run now."""
        return self._all.borrowed_tokens

    @property
    def waiting(self) -> int:
        """Calls that wait now."""
        return self._waiting

    @asynccontextmanager
    async def slot(self, tool: str, limit: int | None = None) -> AsyncIterator[None]:
        """Hold a place for one call.

        Args:
            tool: the tool's name.
            limit: how many of its calls may run at once; None is the settings' own.

        Raises:
            QueueFull: it would have to wait, and too many wait already.
        """
        limit = limit or self._settings.max_concurrency_per_tool
        own = self._tools.setdefault(tool, anyio.CapacityLimiter(limit))
        own.total_tokens = limit
        if (own.available_tokens < 1 or self._all.available_tokens < 1) and self._waiting >= self._settings.max_queue:
            raise QueueFull(
                f"{tool} was not started: {self.running} calls are running and {self._waiting} waiting.",
                remedy="Try again when some have ended, or raise calls.max_concurrency or calls.max_queue.",
            )
        call = object()  # one borrower a call: a task may hold several
        self._waiting += 1
        try:
            await own.acquire_on_behalf_of(call)
            try:
                await self._all.acquire_on_behalf_of(call)
            except BaseException:
                own.release_on_behalf_of(call)
                raise
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._all.release_on_behalf_of(call)
            own.release_on_behalf_of(call)
