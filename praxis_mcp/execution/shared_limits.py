"""What callers have under way, counted together with the other servers of the store.

Each server says for each caller how many calls it has, all of them each time, so that nothing that is lost on the
way stays wrong; one statement at a time for each caller, with all that came meanwhile. The store is away where it does
not answer in time: then calls wait for it no longer, and each server goes by its own count until it is back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import anyio

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records.caller_calls import Claim, Grant, Rate
from praxis_mcp.execution.records.row import storable_name
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.support.logs import logger, places

ANSWERED_WITHIN = 1.0
"""Seconds that a call waits to be counted with those of other servers."""
OPENED_WITHIN = 5.0
"""The same until the database was first opened, or could not be: its driver is imported, and its tables are made."""
CLAIM_EVERY = 5.0
"""Seconds between two renewals of what is held, and between two tries where the store is away."""
MOST_UNSAID = 1_000
"""Callers of whom is kept, while the store is away, that they have nothing under way any more; of others it learns that
when what they had is no longer renewed (`caller_calls.LEASE`)."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class SharedCall:
    """One call on its way.

    Attributes:
        caller: whose.
        answer: what came of it; None is that the store cannot say.
        is_counted: whether it is among those that this server holds.
    """

    caller: str
    answer: asyncio.Future[Grant | None]
    is_counted: bool = False


@dataclass(slots=True, eq=False)
class _Caller:
    held: int = 0
    waiting: deque[SharedCall] = field(default_factory=deque[SharedCall])
    is_written: bool = True
    is_busy: bool = False


class SharedLimits:
    """The calls of one server, as the others of its store know of them.

    Attributes:
        is_away: whether the store cannot say, and this server goes by its own count.

    Args:
        store: which they share.
        most: calls that a caller may have under way on all servers; None sets no limit.
        rate: how often one may call; None sets no limit.
        scope: of servers that share a store, those with the same one count together.
    """

    def __init__(self, store: RecordStore, most: int | None, rate: Rate | None, scope: str = "") -> None:
        self._store = store
        self._most = most
        self._rate = rate
        self._scope = scope
        self._callers: dict[str, _Caller] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_opened = self._is_opening = self._is_trying = False
        self.is_away = False

    def open(self) -> None:
        """Open the store for this, so that the first call need not wait for that."""
        if not self._is_opening:
            self._is_opening = True
            self._submit(lambda _: None, lambda _: None)

    def begin(self, caller: str) -> SharedCall:
        """Have a call counted; it has to end with `end`."""
        call = SharedCall(caller, asyncio.get_running_loop().create_future())
        if self.is_away:
            call.answer.set_result(None)
        else:
            entry = self._callers.setdefault(caller, _Caller())
            entry.waiting.append(call)
            self._say(caller, entry)
        return call

    async def answer(self, call: SharedCall) -> Grant | None:
        """What came of it; None where the store cannot say, and the call is this server's own affair. A call that may
        begin is counted."""
        with anyio.move_on_after(ANSWERED_WITHIN if self._is_opened else OPENED_WITHIN):
            await asyncio.wait([call.answer])
        if call.answer.done():
            grant = call.answer.result()
        else:
            call.answer.cancel()
            grant = None
            self._is_lost("the store does not answer in time")
        if grant is None:
            self.count(call)
        return grant

    def count(self, call: SharedCall) -> None:
        """Count a call that this server has let in by itself."""
        if not call.is_counted:
            call.is_counted = True
            self._callers.setdefault(call.caller, _Caller()).held += 1
            self._say_held(call.caller)

    def end(self, call: SharedCall) -> None:
        """It has ended, or will not begin."""
        call.answer.cancel()
        if call.is_counted:
            call.is_counted = False
            self._callers[call.caller].held -= 1
            self._say_held(call.caller)

    def _say_held(self, caller: str) -> None:
        entry = self._callers[caller]
        entry.is_written = self._most is None  # what comes at most so often need not be given back
        self._say(caller, entry)

    def _say(self, caller: str, entry: _Caller) -> None:
        if entry.is_busy:
            return
        waiting = [call for call in entry.waiting if not call.answer.done()]
        entry.waiting.clear()
        if self.is_away:
            for call in waiting:
                call.answer.set_result(None)
            waiting.clear()
        if not waiting and (entry.is_written or self.is_away):
            if not entry.held and (entry.is_written or len(self._callers) > MOST_UNSAID):
                del self._callers[caller]
            else:
                self._look_later()
            return
        entry.is_busy = entry.is_written = True
        name = storable_name(f"{self._scope}{caller}")
        claim = Claim(name, self._store.server, entry.held, len(waiting), self._most, self._rate)
        self._submit(lambda database: database.claim_calls(claim), partial(self._granted, caller, entry, waiting))

    def _granted(self, caller: str, entry: _Caller, waiting: list[SharedCall], grant: Grant | None) -> None:
        entry.is_busy = False
        left = grant.calls if grant is not None else 0
        for call in waiting:
            if call.answer.done():  # it has left, or began without an answer
                entry.is_written = False
                continue
            if left:
                call.is_counted = True
                entry.held += 1
            call.answer.set_result(grant if grant is None else Grant(int(left > 0), grant.left))
            left = max(0, left - 1)
        if grant is None or left:
            entry.is_written = False
        self._say(caller, entry)
        self._look_later()

    def _submit(self, work: Callable[[SqlDatabase], T], then: Callable[[T | None], None]) -> None:
        loop = asyncio.get_running_loop()

        def done(future: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(self._done, future, then)

        try:
            self._store.callers.submit(work).add_done_callback(done)
        except RecordsUnavailable:  # it has been closed: this server ends
            self.is_away = True
            loop.call_soon(then, None)

    def _done(self, future: Future[T], then: Callable[[T | None], None]) -> None:
        self._is_opened = True
        exc = future.exception()
        if exc is not None:
            self._is_lost(str(exc) if isinstance(exc, RecordsUnavailable) else places(exc))
        then(None if exc is not None else future.result())

    def _is_lost(self, why: str) -> None:
        if not self.is_away:
            self.is_away = True
            logger.warning("limits per caller hold for this server alone for now: {}", why)
            self._look_later()

    def _look_later(self) -> None:
        if self._timer is None and (self._callers or self.is_away):
            self._timer = asyncio.get_running_loop().call_later(CLAIM_EVERY, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.is_away:
            if not self._is_trying:
                self._is_trying = True
                self._submit(lambda _: time.monotonic(), partial(self._tried, time.monotonic()))
        else:
            self._say_all()
        self._look_later()

    def _tried(self, began: float, met: float | None) -> None:
        self._is_trying = False
        if self.is_away and met is not None and met - began < ANSWERED_WITHIN:
            self.is_away = False
            logger.info("limits per caller hold for all servers together again")
            self._say_all()  # it may have forgotten everything

    def _say_all(self) -> None:
        for caller, entry in list(self._callers.items()):
            entry.is_written = self._most is None
            self._say(caller, entry)
