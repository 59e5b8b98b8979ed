"""The store of runs as one viewer may see it. The one place that decides whose runs are shown to whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import anyio

from praxis_mcp.engines.base import Artifact
from praxis_mcp.engines.output import StreamName
from praxis_mcp.errors import RecordsUnavailable, RunNotFoundError
from praxis_mcp.execution.records.archive import RunArchive
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.execution.records.row import StoredRun, storable_name
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.execution.records.store import RecordStore
from praxis_mcp.serving.console.sessions import Viewer
from praxis_mcp.settings.model import Settings

MAX_LOOKS = 4
"""Looks at the store that wait for one another: it has one connection for them."""
MOST_LOOKED_THROUGH = 1000
"""Runs that are looked through for those of tools that a viewer sees, where toolsets keep some from them."""
LOST_LOOKED_FOR_EVERY = 5.0
"""Seconds between two looks, while anybody looks at runs, for those whose server is gone."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunDetails:
    """One run with what it left.

    Attributes:
        run: as it is kept.
        artifacts: the files that are still there.
        streams: see `RunArchive.stream`.
        live: output of a run that goes on: number, stream, bytes.
    """

    run: StoredRun
    artifacts: tuple[Artifact, ...]
    streams: dict[StreamName, bytes | Path]
    live: list[tuple[int, str, bytes]]


class RunReader:
    """Reads runs. The owner sees all of the store, which is theirs; a caller sees runs of this project only, and of
    those their own, unless a scope of theirs covers all; and none of tools that toolsets keep from them.

    Args:
        settings: name the project.
        store: which this process has open; None where nothing is recorded.
    """

    def __init__(self, settings: Settings, store: RecordStore | None) -> None:
        self._store = store
        self._root = storable_name(str(settings.root))
        self._limiter = anyio.CapacityLimiter(MAX_LOOKS)
        self._looked_for_lost = float("-inf")

    async def runs(self, viewer: Viewer, filters: Filters, limit: int) -> list[StoredRun] | None:
        """Runs without their streams, newest first; None where nothing is recorded.

        Raises:
            RecordsUnavailable: they cannot be read.
        """
        if not viewer.sees_all_runs:
            if not viewer.caller.name:
                return []
            filters = replace(filters, caller=viewer.caller.name)
        if not viewer.is_owner:
            filters = replace(filters, root=self._root)

        def read(archive: RunArchive | None) -> list[StoredRun] | None:
            return _newest(archive, viewer, filters, limit) if archive is not None else None

        return await self._with_archive(read)

    async def details(self, viewer: Viewer, run_id: str, after: int = 0) -> RunDetails:
        """A run by its whole id.

        Args:
            viewer: who looks.
            run_id: of the run.
            after: number of the first piece of live output to read.

        Raises:
            RunNotFoundError: there is none, or not for this viewer.
            RecordsUnavailable: it cannot be read.
        """

        def read(archive: RunArchive | None) -> RunDetails:
            run = archive.find(run_id) if archive is not None else None
            if archive is None or run is None or run.id != run_id or not self.may_see(viewer, run):
                raise no_such_run(run_id)
            live = archive.database.live_output(run.id, after) if run.ended is None else []
            ended: dict[StreamName, bytes | Path] = {}
            if run.ended is not None:
                ended = {"stdout": archive.stream(run, "stdout"), "stderr": archive.stream(run, "stderr")}
            return RunDetails(run, archive.artifacts(run), ended, live)

        try:
            return await self._with_archive(read)
        except RunNotFoundError as exc:  # it may name other runs
            raise no_such_run(run_id) from exc

    def may_see(self, viewer: Viewer, run: StoredRun) -> bool:
        """Whether a run is shown to a viewer."""
        if viewer.is_owner:
            return True
        is_theirs = viewer.sees_all_runs or viewer.owns(run)
        return run.root == self._root and is_theirs and viewer.caller.sees(run.tool)

    async def _with_archive(self, work: Callable[[RunArchive | None], T]) -> T:
        store = self._store
        if store is None:
            return work(None)

        def read(database: SqlDatabase) -> T:
            if time.monotonic() - self._looked_for_lost > LOST_LOOKED_FOR_EVERY:
                with suppress(RecordsUnavailable):  # where it is locked, reading works all the same
                    store.close_lost_runs(database)
                self._looked_for_lost = time.monotonic()
            return work(RunArchive(store.directory, database, shared=database if store.is_shared else None))

        async with self._limiter:
            return await store.looks.run(read)


def _newest(archive: RunArchive, viewer: Viewer, filters: Filters, limit: int) -> list[StoredRun]:
    if viewer.is_owner or viewer.caller.view is None:
        return list(archive.runs(filters, limit))
    return [run for run in archive.runs(filters, MOST_LOOKED_THROUGH) if viewer.caller.sees(run.tool)][:limit]


def no_such_run(run_id: str) -> RunNotFoundError:
    """What a viewer gets who asks for a run that is not there, or is not theirs to see."""
    return RunNotFoundError(f'There is no run "{run_id[:64]}" for you here.')
