"""Records in SQLite: the one module that knows `sqlite3`, which is imported with it and so not before the first call.

Write-ahead logging with ``synchronous = NORMAL`` (https://sqlite.org/wal.html, https://sqlite.org/pragma.html): what
was committed outlives a killed process, and after a power failure the database is whole, though it may lack the last
moments.

From the log, pages go into the database itself in a thread of their own: that waits for the disk, up to 40 ms, and a
commit that did it would have all answers wait that are to be recorded then.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records.caller_calls import Claim, Grant, Kept, settle
from praxis_mcp.execution.records.database import migrations
from praxis_mcp.execution.records.sql import RunSql, SqlDatabase

BUSY_TIMEOUT = 2.0
"""Seconds to wait for another process that writes."""
CHECKPOINT_AFTER = 100
"""Commits of a connection after which the log goes into the database; one writes some eight pages."""
MOST_PAGES_LOGGED = 4000
"""Pages (of 4 KiB) in the log from which on each commit looks after that itself, as SQLite does: where processes end
too soon, or others always write, so that the log could not begin again. What is left to do then is little."""
CHECKPOINT_TIMEOUT = 1.0
"""Seconds that closing waits for what is under way; the process may end without it."""
_PAGES_FREED_AT_ONCE = 4096
_PAGES_KEPT_FREE = 64


class SqliteDatabase(SqlDatabase):
    """A file; see `Database`.

    Args:
        file: made where there is none, for this user only.
        create: False refuses one that is not there.

    Raises:
        RecordsUnavailable: it cannot be opened: it is locked, damaged, or of a later version.
    """

    # Of several indexes SQLite takes one, without knowing how many runs have each value, and reads every row to look at
    # the other columns: long rows, here and there. This index alone says of each run whether it is meant.
    _of_several = " INDEXED BY runs_by_time"
    _forget_holder = (
        "UPDATE caller_calls SET holders = json_remove(holders, '$.\"' || ? || '\"') "
        "WHERE iif(json_valid(holders), instr(holders, '\"' || ? || '\":'), 0) > 0"
    )

    def __init__(self, file: Path, *, create: bool = True) -> None:
        self._file = file
        self._commits = 0
        self._checkpoint: threading.Thread | None = None
        with self._translated():
            _make_private(file, create=create)
            self._connection = sqlite3.connect(file, timeout=BUSY_TIMEOUT, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    @contextmanager
    def transaction(self) -> Iterator[RunSql]:
        """See the base."""
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        self._commits += 1
        if self._commits >= CHECKPOINT_AFTER and (self._checkpoint is None or not self._checkpoint.is_alive()):
            self._commits = 0
            # A disk that hangs does not keep the process from ending.
            self._checkpoint = threading.Thread(
                target=_write_back, args=(self._file,), name="praxis-mcp checkpoint", daemon=True
            )
            self._checkpoint.start()

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """See the base."""
        with self._translated():
            return self._connection.execute(statement, values).fetchall()

    def claim_calls(self, claim: Claim) -> Grant:
        """See the base."""
        with self.transaction() as run_sql:
            rows = run_sql(
                "SELECT holders, allowance, at FROM caller_calls WHERE caller = ?", (claim.caller,)
            ).fetchall()
            kept, grant = settle(Kept(*rows[0]) if rows else None, claim, time.time())
            run_sql(
                "INSERT INTO caller_calls (caller, holders, allowance, at) VALUES (?, ?, ?, ?) ON CONFLICT (caller) "
                "DO UPDATE SET holders = excluded.holders, allowance = excluded.allowance, at = excluded.at",
                (claim.caller, kept.holders, kept.allowance, kept.at),
            )
        return grant

    def close(self) -> None:
        """See the base."""
        if self._checkpoint is not None:
            self._checkpoint.join(CHECKPOINT_TIMEOUT)
        with self._translated():
            self._connection.close()

    def commit_durably(self) -> None:
        """See the base."""
        with self._translated():
            self._connection.execute("PRAGMA synchronous = FULL")

    def _give_room_back(self) -> None:
        with self._translated():
            # Else the file would never get smaller. Some are kept for the next runs.
            (unused,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            if unused > 2 * _PAGES_KEPT_FREE:
                # By `execute`, one page would be freed: that steps through a statement only as far as it has rows.
                freed = min(unused - _PAGES_KEPT_FREE, _PAGES_FREED_AT_ONCE)
                self._connection.executescript(f"PRAGMA incremental_vacuum({freed})")

    def _prepare(self) -> None:
        run_sql = self._connection.execute
        known = migrations("sqlite")
        if self._version() > known[-1][0]:
            raise RecordsUnavailable(
                f"{self._file} was made by a later version of praxis-mcp.",
                remedy="Use that version, or name another place for records (records.directory).",
            )
        if self._version() == 0:
            run_sql("PRAGMA auto_vacuum = INCREMENTAL")  # counts only before there is a table
        run_sql("PRAGMA journal_mode = WAL")
        run_sql("PRAGMA synchronous = NORMAL")
        run_sql(f"PRAGMA wal_autocheckpoint = {MOST_PAGES_LOGGED}")
        run_sql(
            f"PRAGMA journal_size_limit = {MOST_PAGES_LOGGED * 4096}"
        )  # to make the file smaller takes a while, too
        if self._version() < known[-1][0]:
            with self.transaction() as change:
                for number, statements in known:
                    if number > self._version():  # again, now that nobody else changes it
                        for statement in statements:
                            change(statement, ())
                        change(f"PRAGMA user_version = {number}", ())

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise RecordsUnavailable(f"{self._file}: {exc}.", remedy=_remedy(exc, self._file)) from exc
        except OSError as exc:
            raise RecordsUnavailable(f"{self._file}: {exc.strerror}.", remedy=_remedy(exc, self._file)) from exc


def _write_back(file: Path) -> None:
    """Write into the database what its log holds, as far as that has nobody wait. In a thread; by a connection of its
    own, which lets others write meanwhile."""
    place = f"{file.absolute().as_uri()}?mode=rw"  # not made again where it was moved away
    with (
        suppress(sqlite3.Error),  # commits do it then, and say what is wrong
        closing(sqlite3.connect(place, timeout=0, uri=True)) as connection,
    ):
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


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
