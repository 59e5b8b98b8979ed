"""The store as its reader sees it: `praxis-mcp runs`. Everything here blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from praxis_mcp.engines.base import Artifact
from praxis_mcp.engines.output import StreamName
from praxis_mcp.errors import RecordsUnavailable, RunNotFoundError
from praxis_mcp.execution.records.audit import AuditTrail
from praxis_mcp.execution.records.database import Database, Filters
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.shared_files import bring
from praxis_mcp.execution.records.sql import REMOVED_AT_ONCE, SqlDatabase
from praxis_mcp.execution.records.store import (
    DATABASE,
    close_lost_runs,
    files_in,
    open_database,
    place_name,
    remove_files,
)
from praxis_mcp.settings.sections import RecordSettings
from praxis_mcp.support.files import pieces_of
from praxis_mcp.support.logs import logger
from praxis_mcp.support.rooted import kept_size, open_kept

LAST = "last"
"""Names the newest run."""
FOLLOW_EVERY = 0.25
"""Seconds between two looks at a run that is followed."""
_LOST_EVERY = 8
"""With each so many of them it is looked whether its server lives."""
_ARCHIVE_PIECE = 64 * 1024
_MOST_AMBIGUOUS = 5

Piece = tuple[StreamName, bytes]


@dataclass(frozen=True, slots=True)
class RunArchive:
    """Runs that are kept; see `open_archive`.

    Attributes:
        directory: of the records.
        database: has the runs.
        trail: the audit trail there, if any.
        shared: the database, where servers on other machines share it: it may have files of their runs.
    """

    directory: Path
    database: Database
    trail: AuditTrail | None = None
    shared: SqlDatabase | None = None

    def runs(self, filters: Filters, limit: int | None = None) -> Iterator[StoredRun]:
        """Runs without their streams, newest first.

        Raises:
            RecordsUnavailable: they cannot be read.
        """
        return self.database.select(filters, limit)

    def find(self, name: str) -> StoredRun:
        """A run by its id, by the beginning of it, or ``last``.

        Raises:
            RunNotFoundError: there is none, or more than one.
            RecordsUnavailable: it cannot be read.
        """
        ids = [run.id for run in self.runs(Filters(), 1)] if name == LAST else self._ids(name)
        if len(ids) > 1:
            shown = ", ".join(ids[: _MOST_AMBIGUOUS - 1]) + (" …" if len(ids) >= _MOST_AMBIGUOUS else "")
            raise RunNotFoundError(f'More than one run begins with "{name[:64]}": {shown}.', remedy="Write more of it.")
        found = self.database.find(ids[0]) if ids else None
        if found is None:
            raise RunNotFoundError(
                f'No run "{name[:64]}" is recorded.', remedy="praxis-mcp runs list shows the newest ones."
            )
        return found

    def output(self, run: StoredRun, skip: dict[str, int] | None = None) -> Iterator[Piece]:
        """What a run wrote, in pieces: in the order in which it came, as long as it runs; else one stream after the
        other.

        Args:
            run: as `find` gave it.
            skip: bytes of each stream to leave out.
        """
        skip = dict(skip or {})
        live = [(stream, data) for _, stream, data in self.database.live_output(run.id, 0)]
        pieces = iter(live) if live else self._ended_output(run)
        for stream, data in pieces:
            left_out = min(skip.get(stream, 0), len(data))
            skip[stream] = skip.get(stream, 0) - left_out
            if left_out < len(data):
                yield ("stdout" if stream == "stdout" else "stderr"), data[left_out:]

    def follow(self, name: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[Piece]:
        """As `output`, on and on until the run has ended.

        Raises:
            RunNotFoundError: it is no longer kept.
            RecordsUnavailable: it cannot be read.
        """
        run = self.find(name)
        seen: dict[str, int] = {}
        looks = 0
        while True:
            for stream, data in self.output(run, seen):
                seen[stream] = seen.get(stream, 0) + len(data)
                yield stream, data
            if run.ended is not None:
                return
            sleep(FOLLOW_EVERY)
            looks += 1
            if looks % _LOST_EVERY == 0:
                close_lost_runs(self.database, self.directory, self.trail)
            run = self.find(run.id)

    def stream(self, run: StoredRun, stream: StreamName) -> bytes | Path:
        """What is kept of a stream: the bytes, where the database has them; else the file that does, which may be gone.

        Args:
            run: as `find` gave it.
            stream: which.
        """
        data = run.stdout if stream == "stdout" else run.stderr
        if data is not None:
            return data
        if live := [data for _, name, data in self.database.live_output(run.id, 0) if name == stream]:
            return b"".join(live)
        return self._files(run) / stream if run.ended is not None else b""

    def artifacts(self, run: StoredRun) -> tuple[Artifact, ...]:
        """The files that a run left as results, as far as they are there."""
        directory = self._files(run) / "artifacts"
        listed = (Artifact(item["name"], directory / item["name"], item["size"]) for item in run.as_json()["artifacts"])
        return tuple(item for item in listed if _is_kept(item.file))

    def is_here(self, run: StoredRun) -> bool:
        """Whether the files of a run are in this directory, or could be brought there; else they are where
        `StoredRun.kept_at` says."""
        return run.kept_at in ("", place_name(self.directory)) or self._files(run).is_dir()

    def remove(self, runs: Iterator[StoredRun] | list[StoredRun]) -> int:
        """Remove runs that have ended, with their files; how many.

        Raises:
            RecordsUnavailable: they cannot be removed.
        """
        ids = [run.id for run in runs if run.ended is not None]
        files = files_in(self.directory)
        for begin in range(0, len(ids), REMOVED_AT_ONCE):
            some = ids[begin : begin + REMOVED_AT_ONCE]
            self.database.remove(some)
            for run_id in some:
                remove_files(files, run_id)
        return len(ids)

    def _ids(self, name: str) -> list[str]:
        return self.database.find_ids(name, _MOST_AMBIGUOUS) if name.isalnum() and name.isascii() else []

    def _files(self, run: StoredRun) -> Path:
        files = files_in(self.directory)
        if self.shared is not None:
            bring(self.shared, run, files)
        return files / run.id

    def _ended_output(self, run: StoredRun) -> Iterator[tuple[str, bytes]]:
        for stream, data in (("stdout", run.stdout), ("stderr", run.stderr)):
            if data is not None:
                yield stream, data
            elif (run.stdout_bytes if stream == "stdout" else run.stderr_bytes) > 0:
                for piece in _kept_pieces(self._files(run) / stream):
                    yield stream, piece


@contextmanager
def open_archive(settings: RecordSettings) -> Iterator[RunArchive | None]:
    """The runs that are kept where the settings say; None where no run has been recorded there.

    Raises:
        RecordsUnavailable: they cannot be read.
    """
    place = settings.place
    if place is None or (settings.url is None and not (place / DATABASE).exists()):
        yield None
        return
    database = open_database(settings, create=False)
    trail = AuditTrail(place, settings.audit_max_bytes) if settings.audit else None
    try:
        with suppress(RecordsUnavailable):  # where it is locked, reading works all the same
            close_lost_runs(database, place, trail)
        yield RunArchive(place, database, trail, database if settings.url is not None else None)
    finally:
        database.close()


def _is_kept(file: Path) -> bool:
    try:
        kept_size(file)
    except OSError:
        return False
    return True


def _kept_pieces(file: Path) -> Iterator[bytes]:
    try:
        source = open_kept(file)
    except OSError as exc:
        logger.warning("{} is no longer kept: {}", file.name, exc.strerror)
        return
    with source:
        yield from pieces_of(source, _ARCHIVE_PIECE)
