"""Files of runs in the database that servers share: what a run left on one machine can be read on every other.

A file is kept whole or not at all, in pieces. A reader on another machine brings the files of a run into its own
directory of records first, and reads them there like those of its own runs. Everything here blocks.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records.record import RunRecord
from praxis_mcp.execution.records.row import StoredRun, is_inside
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.support.files import pieces_of
from praxis_mcp.support.removal import remove_tree
from praxis_mcp.support.rooted import kept_size, open_kept

SHARED_PIECE = 512 * 1024
"""Bytes of one row."""
_UNNAMED = 2 * 86_400.0
"""Seconds after which files that no run names were left by a killed server."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file of a run, or what is to become one.

    Attributes:
        name: below the directory of the run, with ``/``.
        path: where it is.
        size: bytes.
    """

    name: str
    path: Path
    size: int


def files_of(record: RunRecord) -> list[RunFile]:
    """The files of a run that has ended: streams that are long, and artifacts."""
    found = [
        RunFile(name, captured.file, _size(captured.file))
        for name, captured in record.streams.items()
        if captured.file is not None
    ]
    return found + [RunFile(f"artifacts/{item.name}", item.file, _size(item.file)) for item in record.artifacts]


def has_files(run: StoredRun) -> bool:
    """Whether a run left any."""
    return run.ended is not None and (run.stdout is None or run.stderr is None or run.artifacts != "[]")


def within(files: Iterable[RunFile], most: int) -> list[RunFile]:
    """As many of them as `most` bytes hold, the smallest first."""
    chosen: list[RunFile] = []
    for file in sorted(files, key=lambda each: each.size):
        most -= file.size
        if most < 0:
            break
        chosen.append(file)
    return chosen


def share(database: SqlDatabase, run_id: str, files: Iterable[RunFile]) -> None:
    """Put files of a run into the database, together or not at all.

    Raises:
        RecordsUnavailable: that cannot be done.
        OSError: one of them cannot be read.
    """
    now = time.time()
    with database.transaction() as run_sql:
        for file in files:
            with open_kept(file.path) as source:
                for number, piece in enumerate(chain((source.read(SHARED_PIECE),), pieces_of(source, SHARED_PIECE))):
                    run_sql(
                        "INSERT INTO run_files (run, name, number, data, added) VALUES (?, ?, ?, ?, ?) "
                        "ON CONFLICT (run, name, number) DO UPDATE SET data = excluded.data",
                        (run_id, os.fsencode(file.name), number, piece, now),  # one for an empty file, too
                    )


def bring(database: SqlDatabase, run: StoredRun, files: Path) -> None:
    """Bring the files of a run of another machine to where those of this one are; nothing where they are here, or not
    in the database.

    Args:
        database: may have them.
        run: which.
        files: the directory that has those of all runs.

    Raises:
        RecordsUnavailable: they cannot be read, or not be written here.
    """
    if not has_files(run) or os.path.lexists(files / run.id):
        return
    names = [bytes(name) for (name,) in database.read("SELECT DISTINCT name FROM run_files WHERE run = ?", (run.id,))]
    if not names:
        return
    try:
        files.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".brought-", dir=files))
        try:
            for name in names:
                if is_inside(inside := os.fsdecode(name)):
                    _write(database, run.id, name, made / inside)
            # They come together, in one transaction, and go together: what is there still was there all the while. To
            # read all of it in one transaction would keep others from forgetting what was removed meanwhile.
            if not database.read("SELECT 1 FROM run_files WHERE run = ? LIMIT 1", (run.id,)):
                return
            made.rename(files / run.id)  # which fails where another reader was first
        finally:
            remove_tree(made)
    except OSError as exc:
        if not os.path.lexists(files / run.id):
            raise RecordsUnavailable(
                f"Files of a run cannot be brought to {files}: {exc.strerror}.",
                remedy="See who may write there, and whether the disk is full.",
            ) from exc


def forget_unnamed(database: SqlDatabase) -> None:
    """Remove files of runs that are not recorded: their server was killed in between.

    Raises:
        RecordsUnavailable: they cannot be removed.
    """
    with database.transaction() as run_sql:
        run_sql(
            "DELETE FROM run_files WHERE added < ? AND NOT EXISTS (SELECT 1 FROM runs WHERE id = run_files.run)",
            (time.time() - _UNNAMED,),
        )


def _write(database: SqlDatabase, run_id: str, name: bytes, file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        number = 0
        while rows := database.read(
            "SELECT data FROM run_files WHERE run = ? AND name = ? AND number = ?", (run_id, name, number)
        ):
            out.write(rows[0][0])
            number += 1


def _size(file: Path) -> int:
    try:
        return kept_size(file)
    except OSError:
        return 2**63  # more than any bound
