"""How many calls run at once, and how many may wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from praxis_mcp.errors import QueueFull
from praxis_mcp.settings.model import CallSettings
from praxis_mcp.support.wording import counted


@dataclass(frozen=True, slots=True)
class Share:
    """Calls that may not take everything: half of the places, and half of the queue, rounded up.

    Attributes:
        holder: whose it is, the same for all of its calls.
        calls: what a refusal names them, such as ``calls of up``.
    """

    holder: str
    calls: str


@dataclass(slots=True, eq=False)
class _Call:
    tool: str
    limit: int
    shares: Sequence[Share]
    begins: anyio.Event = field(default_factory=anyio.Event)


class Admission:
    """Limits of the whole server, of each share and of each tool, with one bounded queue.

    A call begins once it fits all of its limits, and holds no place of any before: a burst that waits for one limit
    keeps no other call from another. Of the calls that fit, the one that came first begins.
    """

    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings
        self._running = 0
        self._running_of: Counter[tuple[str, str]] = Counter()
        self._queue: list[_Call] = []

    @property
    def running(self) -> int:
        """Calls that run now."""
        return self._running

    @property
    def waiting(self) -> int:
        """Calls that wait now."""
        return len(self._queue)

    @asynccontextmanager
    async def slot(self, tool: str, limit: int | None = None, shares: Sequence[Share] = ()) -> AsyncIterator[None]:
        """Hold a place for one call.

        Args:
            tool: the tool's name.
            limit: how many of its calls may run at once; None is the settings' own.
            shares: what it is one of the calls of.

        Raises:
            QueueFull: it would have to wait, and too many wait already.
        """
        await anyio.lowlevel.checkpoint()
        call = _Call(tool, limit or self._settings.max_concurrency_per_tool, shares)
        if self._fits(call):
            self._begin(call)
        else:
            self._may_wait(call)
            self._queue.append(call)
            try:
                await call.begins.wait()
            except BaseException:
                if call.begins.is_set():
                    self._end(call)
                else:
                    self._queue.remove(call)
                raise
        try:
            yield
        finally:
            self._end(call)

    def _fits(self, call: _Call) -> bool:
        most = self._settings.max_concurrency
        return (
            self._running < most
            and self._running_of["tool", call.tool] < call.limit
            and all(self._running_of["share", share.holder] < _half(most) for share in call.shares)
        )

    def _begin(self, call: _Call) -> None:
        self._running += 1
        self._running_of.update(_counted(call))
        call.begins.set()

    def _end(self, call: _Call) -> None:
        self._running -= 1
        self._running_of.subtract(_counted(call))
        for key in _counted(call):
            if not self._running_of[key]:
                del self._running_of[key]
        for waiting in list(self._queue):
            if self._running >= self._settings.max_concurrency:
                break
            if self._fits(waiting):
                self._queue.remove(waiting)
                self._begin(waiting)

    def _may_wait(self, call: _Call) -> None:
        most = self._settings.max_queue
        if len(self._queue) >= most:
            running = counted(self.running, "call is", "calls are")
            raise QueueFull(
                f"{call.tool} was not started: {running} running and {self.waiting} waiting.",
                remedy="Try again when some have ended, or raise calls.max_concurrency or calls.max_queue.",
            )
        for share in call.shares:
            waiting = sum(share in other.shares for other in self._queue)
            if waiting >= _half(most):
                raise QueueFull(
                    f"{call.tool} was not started: {waiting} {share.calls} wait, which is half of the queue.",
                    remedy="Try again when some have ended, or raise calls.max_concurrency or calls.max_queue.",
                )


def _counted(call: _Call) -> list[tuple[str, str]]:
    return [("tool", call.tool), *(("share", share.holder) for share in call.shares)]


def _half(most: int) -> int:
    return (most + 1) // 2
