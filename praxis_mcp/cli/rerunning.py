"""Work that is begun again whenever something has changed meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio


class Rerunner:
    """Does one piece of work at a time: new work ends what is under way, and begins when that has ended."""

    def __init__(self) -> None:
        self._next: Callable[[], Awaitable[None]] | None = None
        self._wanted = anyio.Event()
        self._scope = anyio.CancelScope()
        self._turn = anyio.Lock()

    def begin(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have that done next, in place of what is under way or has not begun."""
        self._next = work
        self._wanted.set()
        self._scope.cancel()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Meanwhile nothing is done: what was under way has ended, and what it left undone is for the next `begin`."""
        self._scope.cancel()
        async with self._turn:
            yield

    async def run(self) -> None:
        """Do the work that `begin` gives, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            async with self._turn:
                work, self._next = self._next, None
                with anyio.CancelScope() as self._scope:
                    if work is not None:
                        await work()
