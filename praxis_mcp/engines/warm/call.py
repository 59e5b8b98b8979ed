"""The warm call: one that is handed to something which an engine has started ahead of it, and run from the beginning
where nothing waits.

An engine gives what is its own: how one is started, how it is handed a call, how it is removed. What does not depend on
the engine is here: what a call may meet, when it is run from the beginning after all, and that nothing is left behind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import anyio

from praxis_mcp.engines.init.framing import FramingError
from praxis_mcp.engines.init.waiter import WaiterLost
from praxis_mcp.engines.warm.pool import WAITING_MEMORY, T, WarmBudget, WarmPool
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.settings.sections import WarmSettings

R = TypeVar("R")
S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class WarmKey(Generic[S]):
    """What all have in common that may wait for one call.

    Attributes:
        blueprint: all that is fixed for it.
        files: where its files will be.
        session: the engine's session that they are in; None for an engine without sessions.
    """

    blueprint: Blueprint
    files: tuple[str, ...]
    session: S

    @classmethod
    def of(cls, plan: Plan, session: S) -> WarmKey[S]:
        """The key of a plan."""
        return cls(plan.blueprint, tuple(file.path for file in plan.call.files), session)


def find_cold_reason(settings: WarmSettings, blueprint: Blueprint) -> str:
    """Why nothing may be started ahead of a tool's calls, whatever the engine: in the words of the settings or of the
    contract; empty where something may."""
    if not settings.enabled:
        return "warm.enabled is false"
    if not blueprint.warm:
        return "the contract says warm: false"
    for name in ("max_containers", "max_per_tool"):
        if not getattr(settings, name):
            return f"warm.{name} is 0"
    if settings.max_memory < WAITING_MEMORY:
        return f"warm.max_memory has no room for one, which takes {WAITING_MEMORY // 1024**2} MiB"
    return ""


@dataclass(slots=True)
class Claim:
    """What an engine has for a call that is about to begin.

    Attributes:
        begins_now: whether it would begin at once: something waits for it, or to start it takes a few milliseconds.
    """

    begins_now: bool = True

    def run_elsewhere(self) -> None:
        """Another engine runs it."""


class WarmClaim(Claim, Generic[S, T]):
    """What waited for a call, if anything did: the call's from now on.

    Args:
        pool: where it waited.
        key: what the call may meet.
        item: what waited.
    """

    __slots__ = ("_item", "_pool", "key")

    def __init__(self, pool: WarmPool[WarmKey[S], T], key: WarmKey[S], item: T | None) -> None:
        super().__init__(begins_now=item is not None)
        self.key = key
        self._pool = pool
        self._item = item

    def is_for(self, pool: WarmPool[WarmKey[S], T], key: WarmKey[S]) -> bool:
        """Whether it is for a call of that key, and of what waits in that pool."""
        return self._pool is pool and self.key == key

    def take(self) -> T | None:
        """What waited; once."""
        item, self._item = self._item, None
        return item

    def run_elsewhere(self) -> None:
        """See `Claim.run_elsewhere`."""
        self._pool.spare(self.key)


class WarmCalls(ABC, Generic[S, T]):
    """The warm calls of one engine, and the pool of what waits for them.

    Args:
        settings: how many may wait, and for how long.
        budget: what the engine shares with others.
        expected: errors of the engine's own that `start` may raise.

    Attributes:
        log: where to look when one was lost; for messages.
        kind: what one is; for messages.
        fills_at_once: see `WarmPool`.
    """

    log: ClassVar[str]
    kind: ClassVar[str] = "container"
    fills_at_once: ClassVar[int] = 1

    def __init__(self, settings: WarmSettings, budget: WarmBudget, *expected: type[Exception]) -> None:
        failures = (ExecutionError, WaiterLost, TimeoutError, OSError, *expected)
        self.pool: WarmPool[WarmKey[S], T] = WarmPool(
            settings, self.start, failures, budget, lambda key: key.blueprint.tool, self.fills_at_once
        )

    @abstractmethod
    async def start(self, key: WarmKey[S]) -> T:
        """Start one; bounds its own time, and leaves nothing behind when it fails or is cancelled."""

    @contextmanager
    def claim(self, key: WarmKey[S]) -> Iterator[WarmClaim[S, T]]:
        """Around a call: takes what waits for it. What is not used is removed."""
        with self.pool.demand(key) as item:
            claim = WarmClaim(self.pool, key, item)
            try:
                yield claim
            finally:
                if (unused := claim.take()) is not None:
                    self.pool.remove(unused)

    async def call(
        self,
        key: WarmKey[S] | None,
        hand_over: Callable[[T], Awaitable[R | None]],
        cold: Callable[[], Awaitable[R]],
        claim: Claim | None = None,
    ) -> R:
        """Run a call in one that waits; from the beginning where none does, or where it surely has not run there.

        Args:
            key: what the call may meet; None is nothing.
            hand_over: has one run the call, to its end; None where it surely has not run. That one is removed
                whatever happens.
            cold: runs the call from the beginning.
            claim: what it has taken already, by `claim`.

        Raises:
            ExecutionError: the call was handed over, and nobody can tell how it ended; or as `hand_over` and `cold`.
        """
        if key is None:
            return await cold()
        with self._claimed(claim, key) as held:
            item = held.take()
            end = await self._hand_over(item, key.blueprint.tool, hand_over) if item is not None else None
            return await cold() if end is None else end

    def _claimed(self, claim: Claim | None, key: WarmKey[S]) -> AbstractContextManager[WarmClaim[S, T]]:
        if isinstance(claim, WarmClaim) and claim.is_for(self.pool, key):
            return nullcontext(claim)
        return self.claim(key)

    async def close(self) -> None:
        """Remove all that wait; bounded in time. Calls go on."""
        with anyio.CancelScope(shield=True):
            await self.pool.close()

    async def _hand_over(self, item: T, tool: str, hand_over: Callable[[T], Awaitable[R | None]]) -> R | None:
        done = False
        try:
            try:
                end = await hand_over(item)
            except FramingError:  # larger than Linux takes; the cold path says so
                end = None
            except WaiterLost as exc:
                if exc.may_have_run:
                    raise ExecutionError(
                        f"{tool}: its {self.kind} ended before the call did: {exc}.",
                        remedy=f"Something outside may have removed it. Call again; if it persists, see {self.log}.",
                    ) from exc
                end = None
            done = True
            return end
        finally:
            if done:
                self.pool.remove(item)  # it ends by itself, or nothing runs in it: nobody has to wait for that
            else:
                with anyio.CancelScope(shield=True):
                    await self.drop(item)

    async def drop(self, item: T) -> None:
        """Remove one whose call failed or was cancelled. By default the call's answer waits for that."""
        await item.discard()
