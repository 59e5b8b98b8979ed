"""What was written so recently that a crash of the database would lose it: a commit does not wait for the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from praxis_mcp.execution.records.row import StoredRun


class RecentRuns:
    """Runs that are to be written again where the database has crashed. Used by one thread.

    Args:
        most: bytes of them that are held; beyond that, the oldest are let go.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._runs: deque[tuple[float, StoredRun]] = deque()
        self._held = 0

    def add(self, runs: Iterable[StoredRun], written: float, safe_after: float) -> None:
        """Hold runs that were just written, and let go of those that have become safe: the database that took these
        has not crashed since.

        Args:
            runs: none of them, where `safe_after` is 0.
            written: when, in seconds of the monotonic clock.
            safe_after: see `Database.safe_after`.
        """
        for run in runs if safe_after else ():
            self._runs.append((written, run))
            self._held += run.weight
        while self._runs and (self._runs[0][0] < written - safe_after or self._held > self._most):
            self._held -= self._runs.popleft()[1].weight

    def take(self) -> dict[str, StoredRun]:
        """Those that are held, by id, to be held no longer."""
        runs, self._held = {run.id: run for _, run in self._runs}, 0
        self._runs.clear()
        return runs
