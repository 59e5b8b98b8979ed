"""What one caller may take of a server that many share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from praxis_mcp.errors import QueueFull
from praxis_mcp.execution.admission import Share
from praxis_mcp.settings.model import CallSettings
from praxis_mcp.support.wording import counted

BURST = 10.0
"""Seconds' worth of calls that may come at once after a pause."""
_PER_MINUTE = 60.0
_MANY = 4096
"""Callers known before those are forgotten who have not called for long."""


@dataclass(slots=True)
class _Allowance:
    calls: float
    at: float


class CallerLimits:
    """Bounds on the calls of one caller: a share of the places and of the queue or, where the settings say so, how many
    run or wait together; and how many come in a minute.

    The anonymous caller is everyone who need not say who they are (the client on stdio, clients on the loopback), and
    has the limits of the whole server only.
    """

    def __init__(self, settings: CallSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._held: Counter[str] = Counter()
        self._allowances: dict[str, _Allowance] = {}

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
    def hold(self, caller: str, tool: str) -> Iterator[None]:
        """Hold a place for one call from its beginning to its end.

        Args:
            caller: who calls; empty is anonymous.
            tool: what is called.

        Raises:
            QueueFull: the caller has as many calls under way as the settings say, or calls too often.
        """
        if not caller:
            yield
            return
        most = self._settings.max_per_caller
        if most is not None and self._held[caller] >= most:
            verb = "is" if most == 1 else "are"
            raise QueueFull(
                f"{tool} was not started: {most} of your calls {verb} running or waiting, which is as many as you may "
                "have.",
                remedy="Try again when one has ended (calls.max_per_caller).",
            )
        self._spend(caller, tool)
        self._held[caller] += 1
        try:
            yield
        finally:
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]

    def _spend(self, caller: str, tool: str) -> None:
        rate = self._settings.max_rate_per_caller
        if rate is None:
            return
        each, most = rate / _PER_MINUTE, max(1.0, rate / _PER_MINUTE * BURST)
        now = self._clock()
        if len(self._allowances) >= _MANY:
            full_since = now - most / each
            self._allowances = {name: kept for name, kept in self._allowances.items() if kept.at > full_since}
        known = self._allowances.setdefault(caller, _Allowance(most, now))
        known.calls = min(most, known.calls + (now - known.at) * each)
        known.at = now
        if known.calls < 1:
            raise QueueFull(
                f"{tool} was not started: you may make {counted(rate, 'call', form='g')} a minute.",
                remedy=f"Try again in {max(1, round((1 - known.calls) / each))} s (calls.max_rate_per_caller).",
            )
        known.calls -= 1
