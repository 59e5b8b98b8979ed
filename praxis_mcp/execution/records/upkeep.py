"""When the records are looked through for what killed servers left, and for what exceeds their bounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records.database import Database
from praxis_mcp.support.logs import logger

UPKEEP_EVERY = 60.0
"""Seconds between two looks for what killed servers left, and for what exceeds the bounds."""
UPKEEP_AFTER = 500
UPKEEP_AFTER_BYTES = 32 * 1024 * 1024
"""Ended runs, and bytes that they take up, after which the bounds are looked at sooner."""
_MOST_FAILED = 3
"""Looks in a row that have failed, after which the log says so: another process may have been at it."""


class Upkeep:
    """Looks through the records, a step at a time, so that what has come meanwhile can be written in between: there may
    be a million to remove. Belongs to the thread of the database.

    Args:
        look: does it, step by step.
    """

    def __init__(self, look: Callable[[Database], Iterator[None]]) -> None:
        self._look = look
        self._steps: Iterator[None] | None = None
        self._next_at = 0.0
        self._runs = self._size = 0
        self._failed = 0

    @property
    def is_under_way(self) -> bool:
        """Whether there are steps left."""
        return self._steps is not None

    @property
    def left(self) -> float:
        """Seconds until the next look."""
        return self._next_at - time.monotonic()

    def count(self, runs: int, size: int) -> None:
        """So many have ended, with so many bytes."""
        self._runs += runs
        self._size += size

    def go_on(self, database: Database) -> None:
        """Do one step, if one is due."""
        if self._steps is None:
            if self.left > 0 and self._runs < UPKEEP_AFTER and self._size < UPKEEP_AFTER_BYTES:
                return
            self._next_at, self._runs, self._size = time.monotonic() + UPKEEP_EVERY, 0, 0
            self._steps = self._look(database)
        try:
            next(self._steps)
        except StopIteration:
            self._steps, self._failed = None, 0
        except RecordsUnavailable as exc:  # there is a next time
            self._steps = None
            self._failed += 1
            if self._failed == _MOST_FAILED:
                logger.warning("the records cannot be looked through, and may exceed their bounds: {}", exc)

    def break_off(self) -> None:
        """The database is another one from now on."""
        self._steps = None
