"""How many things may wait for their calls in one process, whichever engine started them."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet

from praxis_mcp.settings.model import WarmSettings

WAITING_MEMORY = 8 * 1024 * 1024
"""Bytes that one takes up while it waits, taken high: a container's shim and praxis-init have 4 MiB (proportional set
size, containerd 1.6)."""


class WarmHolder(Protocol):
    """A pool, as the budget sees it."""

    def held(self) -> int:
        """How many it has, or is about to have."""
        ...

    def oldest_call(self) -> float | None:
        """When that key was last called which is called least, of those for which something waits; None: nothing
        does."""
        ...

    def give_way(self) -> None:
        """Remove one of that key."""
        ...


class WarmBudget:
    """What all pools of a process may have together: what was called longest ago gives way, in whichever pool."""

    def __init__(self, settings: WarmSettings) -> None:
        self._most = min(settings.max_containers, settings.max_memory // WAITING_MEMORY)
        self._holders: WeakSet[WarmHolder] = WeakSet()

    def join(self, holder: WarmHolder) -> None:
        """Count what a pool has, for as long as it lives."""
        self._holders.add(holder)

    def make_room(self, called: float) -> bool:
        """Whether there is room for one more, of a key that was last called at `called` (`time.monotonic`); one that
        was called before that makes room."""
        holders = list(self._holders)
        if sum(holder.held() for holder in holders) < self._most:
            return True
        older = [(oldest, holder) for holder in holders if (oldest := holder.oldest_call()) is not None]
        if self._most == 0 or not older:
            return False
        oldest, holder = min(older, key=lambda each: each[0])
        if oldest >= called:
            return False
        holder.give_way()
        return True
