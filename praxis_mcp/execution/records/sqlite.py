"""Records in SQLite: the one module that knows `sqlite3`, which is imported with it and so not before the first call.

Write-ahead logging with ``synchronous = NORMAL`` (https://sqlite.org/wal.html, https://sqlite.org/pragma.html): what
was committed outlives a killed process, and after a power failure the database is whole, though it may lack the last
moments.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records.database import Bounds, Filters, Pieces, migrations
from praxis_mcp.execution.records.row import COLUMNS, LOST, SHOWN, StoredRun, storable

BUSY_TIMEOUT = 2.0
"""Seconds to wait for another process that writes."""
_REMOVED_AT_ONCE = 500
_PAGES_FREED_AT_ONCE = 4096
_PAGES_KEPT_FREE = 64
_ROWS_AT_ONCE = 500
_BEHIND = "(started, id) < (?, ?)"

_INSERT = (
    f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "  # noqa: S608 - our own names
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS if name != 'id')}"
)


class SqliteDatabase:
    """A file; see `Database`.

    Args:
        file: made where there is none, for this user only.
        create: False refuses one that is not there.

    Raises:
        RecordsUnavailable: it cannot be opened: it is locked, damaged, or of a later version.
    """

    def __init__(self, file: Path, *, create: bool = True) -> None:
        self._file = file
        with self._translated():
            _make_private(file, create=create)
            self._connection = sqlite3.connect(file, timeout=BUSY_TIMEOUT, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def write(self, runs: Iterable[StoredRun], pieces: Pieces = ()) -> None:
        runs = tuple(runs)
        ended = [(run.id,) for run in runs if run.ended is not None]
        with self._transaction() as run_sql:
            for run in runs:
                run_sql(_INSERT, run.values())
            for run_id, stream, data in pieces:
                run_sql(
                    "INSERT INTO live_output SELECT ?, 1 + coalesce(max(number), 0), ?, ? FROM live_output "
                    "WHERE run = ?",
                    (run_id, stream, data, run_id),
                )
            for key in ended:
                run_sql("DELETE FROM live_output WHERE run = ?", key)

    def servers_of_open_runs(self) -> list[str]:
        return [server for (server,) in self._read("SELECT DISTINCT server FROM runs WHERE ended IS NULL")]

    def close_runs_of(
        self, server: str, ended: float, before: Callable[[list[StoredRun]], None] = lambda _: None
    ) -> list[StoredRun]:
        open_ones = f"SELECT {', '.join(SHOWN)} FROM runs WHERE ended IS NULL AND server = ?"  # noqa: S608
        with self._transaction() as run_sql:
            found = [
                replace(run, ended=max(run.started, ended), outcome=LOST)
                for run in (StoredRun(*row) for row in run_sql(open_ones, (server,)).fetchall())
            ]
            if found:
                # What it had put out stays, and counts.
                run_sql(
                    "UPDATE runs SET ended = max(started, ?), outcome = ?, kept_bytes = kept_bytes + coalesce("
                    "(SELECT sum(length(data)) FROM live_output WHERE run = runs.id), 0) "
                    "WHERE ended IS NULL AND server = ?",
                    (ended, LOST, server),
                )
                before(found)
        return found

    def remove_beyond(self, bounds: Bounds, now: float) -> list[str]:
        oldest = self._oldest_kept(bounds, now)
        ids = [
            key
            for (key,) in self._read(
                "SELECT id FROM runs WHERE started < ? AND ended IS NOT NULL ORDER BY started LIMIT ?",
                (oldest, _REMOVED_AT_ONCE),
            )
        ]
        if ids:
            self.remove(ids)
        with self._translated():
            # Else the file would never get smaller. Some are kept for the next runs.
            (unused,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            if unused > 2 * _PAGES_KEPT_FREE:
                # By `execute`, one page would be freed: that steps through a statement only as far as it has rows.
                freed = min(unused - _PAGES_KEPT_FREE, _PAGES_FREED_AT_ONCE)
                self._connection.executescript(f"PRAGMA incremental_vacuum({freed})")
        return ids

    def _oldest_kept(self, bounds: Bounds, now: float) -> float:
        """When the oldest run began that all bounds allow, all of it from an index."""
        oldest = now - bounds.max_age
        ((count, size),) = self._read("SELECT count(*), coalesce(sum(kept_bytes), 0) FROM runs")
        if count > bounds.max_runs:
            beyond = self._read(
                "SELECT started FROM runs ORDER BY started LIMIT 1 OFFSET ?", (count - bounds.max_runs,)
            )
            oldest = max(oldest, beyond[0][0] if beyond else now + 1)
        if size > bounds.max_bytes:
            with self._translated():
                for started, kept in self._connection.execute("SELECT started, kept_bytes FROM runs ORDER BY started"):
                    size -= kept
                    if size <= bounds.max_bytes:
                        oldest = max(oldest, started + 1e-6)
                        break
        return oldest

    def remove(self, ids: Sequence[str]) -> None:
        with self._transaction() as run_sql:
            for run_id in ids:
                run_sql("DELETE FROM runs WHERE id = ?", (run_id,))
                run_sql("DELETE FROM live_output WHERE run = ?", (run_id,))

    def find(self, run_id: str) -> StoredRun | None:
        rows = self._read(f"SELECT {', '.join(COLUMNS)} FROM runs WHERE id = ?", (run_id,))  # noqa: S608
        return StoredRun(*rows[0]) if rows else None

    def find_ids(self, prefix: str, limit: int) -> list[str]:
        return [
            key
            for (key,) in self._read(
                "SELECT id FROM runs WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (prefix, prefix + "\x7f", limit)
            )
        ]

    def select(self, filters: Filters, limit: int | None = None) -> Iterator[StoredRun]:
        where: list[str] = []
        values: list[Any] = []
        for name in ("tool", "engine", "outcome", "caller", "root"):
            if value := getattr(filters, name):
                where.append(f"{name} = ?" + (" AND caller <> ''" if name == "caller" else ""))
                values.append(storable(value))
        for test, bound in (("started >= ?", filters.since), ("started < ?", filters.until)):
            if bound is not None:
                where.append(test)
                values.append(bound)
        left = limit
        while left is None or left > 0:
            most = _ROWS_AT_ONCE if left is None else min(left, _ROWS_AT_ONCE)
            condition = f" WHERE {' AND '.join(where)}" if where else ""
            # Page by page: an open cursor would keep the write-ahead log from being emptied, however slow the reader.
            rows = self._read(
                f"SELECT {', '.join(SHOWN)} FROM runs{condition} ORDER BY started DESC, id DESC LIMIT ?",  # noqa: S608
                (*values, most),
            )
            for row in rows:
                yield StoredRun(*row)
            if len(rows) < most:
                return
            if left is not None:
                left -= most
            last = StoredRun(*rows[-1])
            if where[-1:] == [_BEHIND]:
                values[-2:] = (last.started, last.id)
            else:
                where.append(_BEHIND)
                values += (last.started, last.id)

    def live_output(self, run_id: str, after: int) -> list[tuple[int, str, bytes]]:
        return self._read(
            "SELECT number, stream, data FROM live_output WHERE run = ? AND number >= ? ORDER BY number",
            (run_id, after),
        )

    def close(self) -> None:
        with self._translated():
            self._connection.close()

    def _prepare(self) -> None:
        run_sql = self._connection.execute
        known = migrations()
        if self._version() > known[-1][0]:
            raise RecordsUnavailable(
                f"{self._file} was made by a later version of praxis-mcp.",
                remedy="Use that version, or name another place for records (records.directory).",
            )
        if self._version() == 0:
            run_sql("PRAGMA auto_vacuum = INCREMENTAL")  # counts only before there is a table
        run_sql("PRAGMA journal_mode = WAL")
        run_sql("PRAGMA synchronous = NORMAL")
        run_sql("PRAGMA journal_size_limit = 4194304")
        if self._version() < known[-1][0]:
            with self._transaction() as change:
                for number, statements in known:
                    if number > self._version():  # again, now that nobody else changes it
                        for statement in statements:
                            change(statement)
                        change(f"PRAGMA user_version = {number}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._translated():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise RecordsUnavailable(f"{self._file}: {exc}.", remedy=_remedy(exc, self._file)) from exc
        except OSError as exc:
            raise RecordsUnavailable(f"{self._file}: {exc.strerror}.", remedy=_remedy(exc, self._file)) from exc


def _remedy(exc: Exception, file: Path) -> str:
    match getattr(exc, "sqlite_errorcode", None):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "Another process holds it; see which one has it open."
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return f"Move {file} away: a fresh one is made."
        case _:
            return "See whether the disk is full, and who may write there; records.directory names another place."


def _make_private(file: Path, *, create: bool) -> None:
    """SQLite gives the files next to it (-wal, -shm) the modes that it has."""
    try:
        if create:
            # Never one that is there: closing a file gives up all locks that this process has on it (fcntl(2)).
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
    except FileExistsError:
        pass
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o077:
        file.chmod(0o600)
