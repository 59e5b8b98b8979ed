"""Things that are started before they are called for, each for a single call, by key: how many, which, until when.

What they are (containers of Docker, execs of Dagger, sandboxes) is the engine's; it says how one is made. The pool has
as many as recent demand needs: none for what has not been called yet, one more for each call that ran at the same time
as others, none again when no call has come for a while. They are made one after the other (some at once, where that
takes seconds and other machines do it), when calls leave time for it, and within a budget that all keys, and all pools,
share: what was called longest ago gives way.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

import anyio

from praxis_mcp.engines.warm.counts import Counts, PoolMetrics, ToolMetrics
from praxis_mcp.settings.sections import WarmSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import BackgroundTasks, unwrapped

LEAST_QUIET, QUIET, QUIET_SHARE = 0.01, 0.05, 0.1
"""Seconds since the last beginning or end of a call after which there is time to make one: for as long as two take to
be made, but no less than the first, and no more than the second or that share of what one takes. A call that comes
meanwhile waits for processors."""
MOST_QUIET = 0.5
"""Seconds after which one is made although calls never leave time for it."""
USUAL_FILL, MOST_FILL = 0.25, 2.0
"""Seconds that making one is taken to last before one was made, and at most, where calls can do without."""
POOL_CHECK_INTERVAL = 5.0
"""Seconds between looks at those that wait: one may have died."""
RETRY_AFTER, MOST_RETRY_AFTER = 2.0, 120.0
"""Seconds until a failed attempt is repeated; doubled with each failure, up to the second."""
POOL_CLOSE_TIMEOUT = 20.0
"""Seconds for the removal of all that wait, when the pool closes."""
MOST_KEYS = 1024
"""Keys whose demand is known at once: a tool has another one whenever what it mounts was replaced."""
FORGET_AFTER = 30.0
"""Seconds in which the demand of a moment fades to a third."""
WAITING_MEMORY = 8 * 1024 * 1024
"""Bytes that one takes up while it waits, taken high: a container's shim and praxis-init have 4 MiB (proportional set
size, containerd 1.6)."""


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
class _Shelf(Generic[K, T]):
    """What there is for one key, and how much it is in demand."""

    key: K
    items: deque[T] = field(default_factory=deque)
    running: int = 0
    peak: float = 0.0
    rate: float = 0.0
    touched: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    is_spared: bool = False
    filling: int = 0

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

    def due_at(self, fill_seconds: float) -> float:
        """When one may be made for it (`time.monotonic`)."""
        quiet = min(max(fill_seconds, QUIET), MOST_FILL) if self.is_spared else 0.0
        return max(self.retry_at, self.touched + quiet)


class WarmBudget:
    """What all pools of a process may have together: what was called longest ago gives way, in whichever pool."""

    def __init__(self, settings: WarmSettings) -> None:
        self._most = min(settings.max_containers, settings.max_memory // WAITING_MEMORY)
        self._pools: WeakSet[WarmPool[Any, Any]] = WeakSet()

    def join(self, pool: WarmPool[Any, Any]) -> None:
        """Count what a pool has, for as long as it lives."""
        self._pools.add(pool)

    def make_room(self, called: float) -> bool:
        """Whether there is room for one more, of a key that was last called at `called` (`time.monotonic`); one that
        was called before that makes room."""
        pools = list(self._pools)
        if sum(pool.held for pool in pools) < self._most:
            return True
        older = [(oldest, pool) for pool in pools if (oldest := pool.oldest_call) is not None]
        if self._most == 0 or not older:
            return False
        oldest, pool = min(older, key=lambda each: each[0])
        if oldest >= called:
            return False
        pool.discard_oldest()
        return True


class WarmPool(Generic[K, T]):
    """A pool. Used by whichever call comes first, closed by `close`, and may be used again after that.

    Args:
        settings: how many, and for how long.
        make: makes one for a key; it bounds its own time, and leaves nothing behind when it fails or is cancelled.
        expected: errors of `make` that are expected; a key whose `make` raises one is tried again later.
        budget: what it shares with other pools; None is a budget of its own.
        tool_of: the tool whose calls a key is for.
        fills_at_once: how many are made at the same time ahead of calls.
    """

    def __init__(
        self,
        settings: WarmSettings,
        make: Callable[[K], Awaitable[T]],
        expected: tuple[type[Exception], ...],
        budget: WarmBudget | None = None,
        tool_of: Callable[[K], str] = str,
        fills_at_once: int = 1,
    ) -> None:
        self._settings = settings
        self._make = make
        self._expected = expected
        self._budget = budget or WarmBudget(settings)
        self._budget.join(self)
        self._fills_at_once = fills_at_once
        self._making = 0
        self._shelves: dict[K, _Shelf[K, T]] = {}
        self._background = BackgroundTasks()
        self._tending: anyio.CancelScope | None = None
        self._wake = anyio.Event()
        self._waking: asyncio.TimerHandle | None = None
        self._waking_on: asyncio.AbstractEventLoop | None = None  # it may have ended since
        self._stirred = 0.0
        self._tool_of = tool_of
        self._failed = self._discarded = 0
        self._counts = Counts()
        self._tools: defaultdict[str, Counts] = defaultdict(Counts)

    @property
    def metrics(self) -> PoolMetrics:
        """See `PoolMetrics`."""
        waiting = Counter(self._tool_of(shelf.key) for shelf in self._shelves.values() for _ in shelf.items)
        return PoolMetrics(
            **asdict(self._counts),
            waiting=waiting.total(),
            failed=self._failed,
            discarded=self._discarded,
            tools={name: ToolMetrics(**asdict(each), waiting=waiting[name]) for name, each in self._tools.items()},
        )

    @property
    def waiting(self) -> tuple[T, ...]:
        """Those that wait now."""
        return tuple(item for shelf in self._shelves.values() for item in shelf.items)

    @contextmanager
    def demand(self, key: K) -> Iterator[T | None]:
        """Around a call: gives one that waited, which is the caller's from now on, or None."""
        shelf = self._shelf(key)
        shelf.begin(time.monotonic())
        self._stir()
        item = self._take(shelf)
        for counts in (self._counts, self._tools[self._tool_of(key)]):
            counts.add_call(found=item is not None)
        try:
            yield item
        finally:
            shelf.running -= 1
            self._stir()

    def spare(self, key: K) -> None:
        """A call of that key began at once elsewhere, in what starts faster. From now on one is made for it only when
        no call came for as long as that takes: to make one costs what many calls there do, which would wait for it."""
        if (shelf := self._shelves.get(key)) is not None:
            shelf.is_spared = True

    async def fill(self, key: K) -> None:
        """Make one now, beyond demand and budget.

        Raises:
            Exception: whatever `make` raises.
        """
        self._making += 1
        item = await self._timed(key)
        self._shelves.setdefault(key, _Shelf(key, touched=time.monotonic())).items.append(item)
        self._start_tending()

    def drop(self, matches: Callable[[T], bool]) -> None:
        """Remove those that wait and match, in the background."""
        for shelf in self._shelves.values():
            for item in [item for item in shelf.items if matches(item)]:
                shelf.items.remove(item)
                self._discard(item)

    def forget(self, matches: Callable[[K], bool]) -> None:
        """Remove those that wait for keys that match, in the background, and what is known of such keys' demand."""
        for key in [key for key in self._shelves if matches(key)]:
            for item in self._shelves.pop(key).items:
                self._discard(item)

    def move(self, moved: Callable[[K], K | None]) -> None:
        """Remove those that wait, in the background, for keys for which there is another one now: its demand is the
        old one's, so that the next call of it meets one, too.

        Args:
            moved: gives the new key; None leaves a key as it is.
        """
        for key, shelf in list(self._shelves.items()):
            new = moved(key)
            if new is None:
                continue
            del self._shelves[key]
            while shelf.items:
                self._discard(shelf.items.popleft())
            if new not in self._shelves:
                shelf.key, shelf.failures, shelf.retry_at = new, 0, 0.0
                self._shelves[new] = shelf
        self._wake.set()

    def retire(self, tools: Collection[str]) -> None:
        """`forget` all keys of these tools."""
        self.forget(lambda key: self._tool_of(key) in tools)

    def remove(self, item: T) -> None:
        """Remove one that has had its call, in the background."""
        self.remove_by(item.discard)

    def remove_by(self, removal: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something removed in the background that nobody waits for; `close` does."""
        self._background.start(removal, "removing a warm one after its call")

    async def wait_for_quiet(self) -> None:
        """Wait until calls leave time for work that none of them waits for, at most `MOST_QUIET`."""
        limit = time.monotonic() + MOST_QUIET
        fill = self._fill_seconds
        seconds = min(max(2 * fill, LEAST_QUIET), max(QUIET, QUIET_SHARE * fill))
        quiet = self._stirred + seconds
        while (now := time.monotonic()) < min(quiet, limit):
            await anyio.sleep(min(quiet, limit) - now)
            quiet = self._stirred + seconds

    async def close(self) -> None:
        """Remove all, and wait for it, at most `POOL_CLOSE_TIMEOUT`."""
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        if self._tending is not None:
            self._tending.cancel()
        self.drop(lambda item: True)
        self._shelves.clear()
        await self._background.close(POOL_CLOSE_TIMEOUT)

    # --- as the budget sees it ----------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many it has, or is about to have."""
        return len(self.waiting) + self._making

    @property
    def oldest_call(self) -> float | None:
        """When that key was last called which is called least, of those for which something waits; None: nothing
        does."""
        return min((shelf.touched for shelf in self._shelves.values() if shelf.items), default=None)

    def discard_oldest(self) -> None:
        """Remove one of that key."""
        shelves = [shelf for shelf in self._shelves.values() if shelf.items]
        self._discard(min(shelves, key=lambda shelf: shelf.touched).items.popleft())

    def _shelf(self, key: K) -> _Shelf[K, T]:
        """The shelf of a key; the one called longest ago gives way where there are too many."""
        shelf = self._shelves.get(key)
        if shelf is None:
            idle = [other for other in self._shelves.values() if not other.running]
            if len(self._shelves) >= MOST_KEYS and idle:
                oldest = min(idle, key=lambda other: other.touched)
                self.forget(lambda other: other == oldest.key)
            shelf = self._shelves[key] = _Shelf(key)
        return shelf

    def _take(self, shelf: _Shelf[K, T]) -> T | None:
        while shelf.items:
            item = shelf.items.popleft()  # the oldest: so that none grows old
            if item.is_fresh():
                return item
            self._discard(item)
        return None

    def _discard(self, item: T) -> None:
        self._discarded += 1
        self._background.start(item.discard, "removing a warm one")

    def _stir(self) -> None:
        self._stirred = time.monotonic()
        loop = asyncio.get_running_loop()
        # Nothing is made before that anyway, and what wakes meanwhile takes the interpreter from the call.
        if self._settings.enabled and (self._waking is None or self._waking_on is not loop):
            self._waking, self._waking_on = loop.call_later(LEAST_QUIET, self._start_tending), loop

    # --- in the background --------------------------------------------------------------------------------------------

    def _start_tending(self) -> None:
        self._waking = None
        if self._tending is None and self._settings.enabled:
            self._tending = anyio.CancelScope()
            self._background.start(self._tend, "tending warm ones")
        self._wake.set()

    async def _tend(self) -> None:
        scope = self._tending
        assert scope is not None
        try:
            with scope, unwrapped():
                async with anyio.create_task_group() as fills:
                    places = anyio.Semaphore(self._fills_at_once)
                    while self._shelves or places.value < self._fills_at_once:
                        await places.acquire()
                        self._clear_out()
                        # Before there is room, not after: another pool may take that meanwhile.
                        await self.wait_for_quiet()
                        shelf = self._neediest()
                        if shelf is None:
                            places.release()
                            await self._pause()
                        else:  # counted at once: the next look must see it
                            shelf.filling += 1
                            self._making += 1
                            fills.start_soon(self._fill, shelf, shelf.key, places)
        finally:
            self._tending = None

    async def _pause(self) -> None:
        self._wake = anyio.Event()
        now = time.monotonic()
        waits = (shelf.due_at(self._fill_seconds) - now for shelf in self._shelves.values())
        soonest = min((wait for wait in waits if wait > 0), default=POOL_CHECK_INTERVAL)
        with anyio.move_on_after(min(soonest, POOL_CHECK_INTERVAL, self._settings.idle_seconds)):
            await self._wake.wait()

    @property
    def _fill_seconds(self) -> float:
        return self._counts.fill_seconds if self._counts.made else USUAL_FILL

    def _clear_out(self) -> None:
        now = time.monotonic()
        for key, shelf in list(self._shelves.items()):
            for item in [item for item in shelf.items if not item.is_fresh()]:
                shelf.items.remove(item)
                self._discard(item)
            if now - shelf.touched < self._settings.idle_seconds or shelf.running:
                continue
            while shelf.items:
                self._discard(shelf.items.popleft())
            del self._shelves[key]

    def _neediest(self) -> _Shelf[K, T] | None:
        """The shelf to fill next: of those that lack one and may have it, the one called last."""
        now = time.monotonic()
        for shelf in sorted(self._shelves.values(), key=lambda shelf: shelf.touched, reverse=True):
            lacks = len(shelf.items) + shelf.filling < shelf.wanted(now, self._fill_seconds, self._settings)
            if shelf.failures and shelf.filling:  # one is enough to see whether it succeeds now
                continue
            if lacks and now >= shelf.due_at(self._fill_seconds) and self._budget.make_room(shelf.touched):
                return shelf
        return None

    async def _fill(self, shelf: _Shelf[K, T], key: K, places: anyio.Semaphore) -> None:
        """Make one of a key, which may not be the shelf's any more when it is there."""
        try:
            item = await self._timed(key)
        except self._expected as exc:
            if shelf.key != key:  # what it was made from has been replaced
                return
            self._failed += 1
            if (now := time.monotonic()) >= shelf.retry_at:  # those that were made at once fail once
                shelf.failures += 1
                shelf.retry_at = now + min(RETRY_AFTER * 2 ** (shelf.failures - 1), MOST_RETRY_AFTER)
            logger.info("nothing could be started ahead of its call: {}", exc)
            return
        finally:
            shelf.filling -= 1
            places.release()
            self._wake.set()
        shelf.failures = 0
        if self._shelves.get(key) is shelf:
            shelf.items.append(item)
        else:
            self._discard(item)

    async def _timed(self, key: K) -> T:
        begun = time.monotonic()
        try:
            item = await self._make(key)
        finally:
            self._making -= 1
        for counts in (self._counts, self._tools[self._tool_of(key)]):
            counts.add_made(time.monotonic() - begun)
        return item
