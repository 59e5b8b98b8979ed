"""How many calls run at once and how many may wait: of the whole server, of each tool, and of each caller."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from praxis_mcp.errors import QueueFull
from praxis_mcp.execution.records.caller_calls import Rate
from praxis_mcp.settings.sections import CallSettings
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from praxis_mcp.execution.shared_limits import SharedLimits


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
        await anyio.lowlevel.checkpoint_if_cancelled()
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


BURST = 10.0
"""Seconds' worth of calls that may come at once after a pause."""
_PER_MINUTE = 60.0
_MANY = 4096
"""Callers known before those are forgotten who have not called for long."""


@dataclass(slots=True)
class _Allowance:
    calls: float
    at: float


AGAIN_AFTER = (0.05, 0.2)
"""Seconds after which a call asks again that was refused because of calls on other servers: a client that has its
answer may be faster than the word that the call has ended."""


class CallerLimits:
    """Bounds on the calls of one caller: a share of the places and of the queue or, where the settings say so, how many
    run or wait together; and how many come in a minute.

    The anonymous caller is everyone who need not say who they are (the client on stdio, clients on the loopback), and
    has the limits of the whole server only.

    Args:
        settings: the limits.
        clock: gives seconds.
        shared: counts the calls on other servers; None where there are none.
    """

    def __init__(
        self,
        settings: CallSettings,
        clock: Callable[[], float] = time.monotonic,
        shared: SharedLimits | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._held: Counter[str] = Counter()
        self._allowances: dict[str, _Allowance] = {}
        self.shared = shared

    @property
    def remembered(self) -> int:
        """How many callers' recent calls are counted: bounded, for a caller whose allowance is full again is as one
        that never came."""
        return len(self._allowances)

    def shares(self, caller: str) -> tuple[Share, ...]:
        """What a call of theirs counts towards when it is admitted. Empty is anonymous."""
        if not caller or self._settings.max_per_caller is not None:
            return ()
        return (Share(f"caller:{caller}", "of your calls"),)

    @contextmanager
    def hold(self, caller: str, tool: str) -> Iterator[Callable[[], Awaitable[None]]]:
        """Hold a place for one call from its beginning to its end.

        Args:
            caller: who calls; empty is anonymous.
            tool: what is called.

        Returns:
            What is to be awaited before the call runs: the other servers have their say meanwhile. It raises
            `QueueFull`, too.

        Raises:
            QueueFull: the caller has as many calls under way as the settings say, or calls too often.
        """
        if not caller:
            yield _at_once
            return
        most = self._settings.max_per_caller
        if most is not None and self._held[caller] >= most:
            raise self._too_many(tool)
        if self.shared is None:
            self._spend(caller, tool)
        self._held[caller] += 1
        try:
            if self.shared is None:
                yield _at_once
            else:
                with self._shared_place(self.shared, caller, tool) as may_begin:
                    yield may_begin
        finally:
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]

    @contextmanager
    def _shared_place(self, shared: SharedLimits, caller: str, tool: str) -> Iterator[Callable[[], Awaitable[None]]]:
        call = shared.begin(caller)

        async def may_begin() -> None:
            nonlocal call
            waits = iter(AGAIN_AFTER)
            while (grant := await shared.answer(call)) is not None and not grant.calls:
                if grant.left < 1:
                    raise self._too_often(tool, grant.left)
                wait = next(waits, None)
                if wait is None:
                    raise self._too_many(tool)
                await anyio.sleep(wait)
                call = shared.begin(caller)
            if grant is None:
                self._spend(caller, tool)

        try:
            yield may_begin
        finally:
            shared.end(call)

    def _too_many(self, tool: str) -> QueueFull:
        most = self._settings.max_per_caller
        running = counted(most or 0, "of your calls is", "of your calls are")
        return QueueFull(
            f"{tool} was not started: {running} running or waiting, which is as many as you may have.",
            remedy="Try again when one has ended (calls.max_per_caller).",
        )

    def _too_often(self, tool: str, left: float) -> QueueFull:
        rate = self._settings.max_rate_per_caller
        assert rate is not None
        return QueueFull(
            f"{tool} was not started: you may make {counted(rate, 'call', form='g')} a minute.",
            remedy=f"Try again in {max(1, round((1 - left) * _PER_MINUTE / rate))} s (calls.max_rate_per_caller).",
        )

    def _spend(self, caller: str, tool: str) -> None:
        rate = rate_of(self._settings)
        if rate is None:
            return
        now = self._clock()
        if len(self._allowances) >= _MANY:
            full_since = now - rate.most / rate.each
            self._allowances = {name: kept for name, kept in self._allowances.items() if kept.at > full_since}
        known = self._allowances.setdefault(caller, _Allowance(rate.most, now))
        known.calls = min(rate.most, known.calls + (now - known.at) * rate.each)
        known.at = now
        if known.calls < 1:
            raise self._too_often(tool, known.calls)
        known.calls -= 1


def rate_of(settings: CallSettings) -> Rate | None:
    """How often a caller may call."""
    if settings.max_rate_per_caller is None:
        return None
    each = settings.max_rate_per_caller / _PER_MINUTE
    return Rate(each, max(1.0, each * BURST))


async def _at_once() -> None:
    pass
