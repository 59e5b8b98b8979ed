"""Runs of every server that shares a database, as one of them sees them: found with their files, listed, and given
away."""

from __future__ import annotations

import time

import anyio

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.execution.records.record import RunRecord, record_of
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.shared_files import bring, files_of, share, within
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.support.logs import logger

SHARED_WITHIN = 5.0
"""Seconds that an answer waits for its files to be in the database."""
SPARED = 15.0
"""Seconds for which no other answer waits where one has waited in vain."""


class SharedRuns:
    """What one server has of the runs of all, and gives to them.

    Args:
        store: has the database.
        most: bytes of the files of one run that are put into it.
    """

    def __init__(self, store: RecordStore, most: int) -> None:
        self._store = store
        self._most = most
        self._not_before = 0.0

    async def share(self, record: RunRecord) -> None:
        """Put the files of a run that has ended where other servers find them, before any link to them is sent. What
        cannot be put there is logged."""
        store, most = self._store, self._most
        has_any = record.artifacts or any(captured.file is not None for captured in record.streams.values())
        if not has_any or not most or time.monotonic() < self._not_before:
            return
        with anyio.move_on_after(SHARED_WITHIN) as scope:
            try:
                await store.access.run(lambda database: share(database, record.run_id, within(files_of(record), most)))
            except (OSError, RecordsUnavailable) as exc:
                self._spare("the files of run {} are kept by this server only: {}", record.run_id, exc)
        if scope.cancelled_caught:
            self._spare("other servers cannot read the files of run {} yet: the database is slow", record.run_id)

    async def bring(self, run: StoredRun) -> None:
        """Have the files of a run here, where the database has them."""
        store = self._store
        try:
            await store.access.run(lambda database: bring(database, run, store.files))
        except RecordsUnavailable as exc:  # what the database has of the run itself can be read all the same
            logger.warning("the files of run {} are not here: {}", run.id, exc)

    async def newest(self, caller: str, root: str, limit: int) -> list[RunRecord]:
        """The newest runs of a caller, none where they cannot be read now.

        Args:
            caller: whose.
            root: the project.
            limit: how many at most.
        """
        filters = Filters(caller=caller, root=root)
        try:
            rows = await self._store.access.run(lambda database: list(database.select(filters, limit)))
        except RecordsUnavailable as exc:
            logger.warning("runs of other servers could not be listed: {}", exc)
            return []
        return [record_of(row, self._store.files / row.id) for row in rows]

    def _spare(self, text: str, *values: object) -> None:
        self._not_before = time.monotonic() + SPARED
        logger.warning(text, *values)
