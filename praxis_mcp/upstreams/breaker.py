"""When a server that failed may be tried again: back-off at first, then a circuit breaker."""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio

from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.support.text import counted

FIRST_DELAY = 0.25
LONGEST_DELAY = 30.0
"""Seconds between two tries: none after the first failure, then doubling, each shortened by chance by up to half, so
that many clients of a server that comes back do not come at once."""
THRESHOLD = 4
"""Failures in a row after which calls are refused at once until the next try is due."""


class CircuitBreaker:
    """Counts the failures of one server in a row.

    *Closed*, a call waits out the delay and then tries. *Open*, calls fail at once. When the next try is due, one call
    is let through to find out (*half-open*); the others are still refused.
    """

    def __init__(
        self, name: str, *, clock: Callable[[], float] = anyio.current_time, chance: Callable[[], float] = random.random
    ) -> None:
        self._name = name
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._reason = ""
        self._next_try = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for the one that tries."""
        return self._failures >= THRESHOLD

    @property
    def reason(self) -> str:
        """Why the last try failed; empty where it did not."""
        return self._reason

    def admit(self) -> float:
        """Seconds to wait before trying; 0 means now, and its outcome must be reported.

        Raises:
            EngineUnavailable: the circuit is open, and no try is due.
        """
        wait = max(0.0, self._next_try - self._clock())
        if not self.is_open:
            return wait
        if wait or self._probing:
            when = f"in {wait:.0f} s" if wait >= 1 else "now" if self._probing else "in less than a second"
            raise EngineUnavailable(
                f"{self._name} failed {counted(self._failures, 'time')} in a row, and is next tried {when}; this call "
                f"was refused without trying. The last failure: {self._reason}",
                remedy="Start it or fix its address, then call again.",
            )
        self._probing = True
        return 0.0

    def succeeded(self) -> None:
        """The server answered."""
        self._failures, self._reason, self._next_try, self._probing = 0, "", 0.0, False

    def failed(self, reason: str) -> None:
        """The server could not be reached, or broke."""
        self._failures += 1
        self._reason = reason
        self._probing = False
        delay = 0.0
        if self._failures > 1:
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures - 2, 16)) * (1 - self._chance() / 2)
        self._next_try = self._clock() + delay
