"""What the records ask of a database in SQL, as SQLite and PostgreSQL both understand it.

The two differ in how they are opened, in what a transaction is, and in how it is known that a server lives: that is in
`sqlite` and `postgres`. Statements have ``?`` for values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from praxis_mcp.execution.outcomes import LOST
from praxis_mcp.execution.records.caller_calls import FORGOTTEN, Claim, Grant
from praxis_mcp.execution.records.database import Bounds, Filters, Pieces
from praxis_mcp.execution.records.row import COLUMNS, FOUND_BY, SHOWN, StoredRun, storable, storable_name

REMOVED_AT_ONCE = 500
_ROWS_AT_ONCE = 500
_BEHIND = "(started, id) < (?, ?)"

INSERT = (
    f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "  # noqa: S608 - our own names
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS if name != 'id')} "
    # A server whose connection broke has another, while the database may not have read all that came by the first: the
    # beginning of a run never replaces its end.
    f"WHERE excluded.ended IS NOT NULL OR runs.ended IS NULL OR runs.outcome = '{LOST}'"
)
INSERT_PIECE = (
    "INSERT INTO live_output SELECT CAST(? AS TEXT), 1 + coalesce(last, 0), CAST(? AS TEXT), ? "
    "FROM (SELECT max(number) AS last FROM live_output WHERE run = ?) AS pieces "
    "WHERE NOT EXISTS (SELECT 1 FROM runs WHERE id = ? AND ended IS NOT NULL AND outcome <> ?)"
)


class Rows(Protocol):
    """What a statement gives."""

    def fetchall(self) -> list[Any]:
        """All of them."""
        ...


RunSql = Callable[[str, Sequence[Any]], Rows]
"""Runs one statement with its values."""


class SqlDatabase(ABC):
    """What `Database` asks, over two ways to run statements."""

    heartbeat = float("inf")
    """Seconds within which `keep_alive` has to be called again."""
    safe_after = 0.0
    """See `Database`."""
    _of_runs: tuple[str, ...] = ("live_output",)
    """Tables of what belongs to a run, by `run`: it goes with that."""
    _of_several: str = ""
    """Follows the name of the table where more than one column says which runs are meant."""
    _digest: str = ""
    """A function of the database: the index of each column in `FOUND_BY` holds the digests by it of the others."""
    _forget_holder: str
    """Removes a server, whose id it takes twice, from what callers have under way."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[RunSql]:
        """Around statements that happen together or not at all; one at a time.

        Raises:
            RecordsUnavailable: they cannot be run; nothing has been changed.
        """

    @abstractmethod
    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows that a query gives.

        Raises:
            RecordsUnavailable: it cannot be run.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    @abstractmethod
    def claim_calls(self, claim: Claim) -> Grant:
        """Begin calls of a caller, as many as fit what all servers together have under way.

        Raises:
            RecordsUnavailable: nobody can say; nothing has been changed, or all has.
        """

    def forget_holder(self, server: str) -> None:
        """Say that a server has no calls any more: it is gone."""
        with self.transaction() as run_sql:
            run_sql(self._forget_holder, (server, server))

    def forget_callers(self, now: float) -> None:
        """Forget what callers had under way who have not called for long; `now` in seconds since 1970."""
        with self.transaction() as run_sql:
            run_sql("DELETE FROM caller_calls WHERE at < ?", (now - FORGOTTEN,))

    def keep_alive(self, server: str) -> None:
        """See `Database`."""

    def leave(self, server: str) -> None:
        """See `Database`."""

    def has_tasks_of(self, server: str) -> bool:
        """See `Database`."""
        return bool(self.read("SELECT 1 FROM tasks WHERE server = ? AND status = 'working' LIMIT 1", (server,)))

    def commit_durably(self) -> None:
        """See `Database`."""

    def take_turns(self, run_sql: RunSql) -> None:
        """In a transaction: wait until those end in which others have called this. (Where only one at a time can
        write, there are none.)"""

    def is_silent(self, server: str) -> bool:
        """See `Database`."""
        return True

    def _give_room_back(self) -> None:
        """After rows were removed."""

    def write(
        self, runs: Iterable[StoredRun], pieces: Pieces = (), before: Callable[[], object] = lambda: None
    ) -> None:
        """See `Database`."""
        before()  # while no other process has to wait for this one
        runs = tuple(runs)
        with self.transaction() as run_sql:
            for run in runs:
                run_sql(INSERT, run.values())
            for run_id, stream, data in pieces:
                run_sql(INSERT_PIECE, (run_id, stream, data, run_id, run_id, LOST))
            for run in runs:
                if run.ended is not None:
                    run_sql("DELETE FROM live_output WHERE run = ?", (run.id,))

    def servers_of_open_runs(self) -> list[str]:
        """See `Database`."""
        return [server for (server,) in self.read("SELECT DISTINCT server FROM runs WHERE ended IS NULL")]

    def close_runs_of(
        self, server: str, ended: float, before: Callable[[list[StoredRun]], None] = lambda _: None
    ) -> list[StoredRun]:
        """See `Database`."""
        with self.transaction() as run_sql:
            # What it had put out stays, and counts.
            closed = run_sql(
                "UPDATE runs SET ended = CASE WHEN started > ? THEN started ELSE ? END, outcome = ?, "  # noqa: S608
                "kept_bytes = kept_bytes + coalesce("
                "(SELECT sum(length(data)) FROM live_output WHERE run = runs.id), 0) "
                f"WHERE ended IS NULL AND server = ? RETURNING {', '.join(SHOWN)}",
                (ended, ended, LOST, server),
            ).fetchall()
            run_sql(self._forget_holder, (server, server))
            found = sorted((StoredRun.of(row) for row in closed), key=lambda run: run.started)
            if found:
                before(found)
        return found

    def remove_beyond(self, bounds: Bounds, now: float) -> list[str]:
        """See `Database`."""
        ((count, size, largest),) = self.read(
            "SELECT count(*), CAST(coalesce(sum(kept_bytes), 0) AS BIGINT), "
            "CAST(coalesce(max(kept_bytes), 0) AS BIGINT) FROM runs"
        )
        if largest > bounds.max_bytes:
            # What fits in no store takes no other runs with it: a tool could remove all by one sparse file.
            found = self.read(
                "SELECT id FROM runs WHERE ended IS NOT NULL AND kept_bytes > ? LIMIT ?",
                (bounds.max_bytes, REMOVED_AT_ONCE),
            )
            if found:
                self.remove(ids := [run_id for (run_id,) in found])
                return ids
        count, size = count - bounds.max_runs, size - bounds.max_bytes
        ids = []
        for run_id, started, kept in self.read(
            "SELECT id, CAST(started AS DOUBLE PRECISION), CAST(kept_bytes AS BIGINT) FROM runs "
            "WHERE ended IS NOT NULL ORDER BY started LIMIT ?",
            (REMOVED_AT_ONCE,),
        ):
            if count <= 0 and size <= 0 and started >= now - bounds.max_age:
                break
            ids.append(run_id)
            count, size = count - 1, size - kept
        if ids:
            self.remove(ids)
        self._give_room_back()
        return ids

    def remove(self, ids: Sequence[str]) -> None:
        """See `Database`."""
        for begin in range(0, len(ids), REMOVED_AT_ONCE):
            some = tuple(ids[begin : begin + REMOVED_AT_ONCE])
            places = ", ".join("?" * len(some))
            with self.transaction() as run_sql:
                run_sql(f"DELETE FROM runs WHERE id IN ({places})", some)  # noqa: S608
                for table in self._of_runs:
                    run_sql(f"DELETE FROM {table} WHERE run IN ({places})", some)  # noqa: S608

    def find(self, run_id: str) -> StoredRun | None:
        """See `Database`."""
        rows = self.read(f"SELECT {', '.join(COLUMNS)} FROM runs WHERE id = ?", (storable(run_id),))  # noqa: S608
        return StoredRun.of(rows[0]) if rows else None

    def find_ids(self, prefix: str, limit: int) -> list[str]:
        """See `Database`."""
        prefix = storable(prefix)
        found = self.read(
            "SELECT id FROM runs WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (prefix, prefix + "\x7f", limit)
        )
        return [key for (key,) in found]

    def select(self, filters: Filters, limit: int | None = None) -> Iterator[StoredRun]:
        """See `Database`."""
        where: list[str] = []
        values: list[Any] = []
        names = [n for n in ("tool", "engine", "outcome", "caller", "root", "kept_at") if getattr(filters, n)]
        for name in names:
            value = getattr(filters, name)
            where.append(f"{name} = ?" + (" AND caller <> ''" if name == "caller" else ""))
            values.append(storable_name(value) if name in FOUND_BY else storable(value))
            if self._digest and len(names) > 1 and name in FOUND_BY:
                where.append(f"{self._digest}({name}) = {self._digest}(?)")
                values.append(values[-1])
        table = "runs" + (self._of_several if len(names) > 1 else "")
        for test, bound in (("started >= ?", filters.since), ("started < ?", filters.until)):
            if bound is not None:
                where.append(test)
                values.append(bound)
        left = limit
        while left is None or left > 0:
            most = _ROWS_AT_ONCE if left is None else min(left, _ROWS_AT_ONCE)
            condition = f" WHERE {' AND '.join(where)}" if where else ""
            # Page by page: an open cursor would keep SQLite's write-ahead log from being emptied, and PostgreSQL from
            # forgetting what was removed, however slow the reader.
            rows = self.read(
                f"SELECT {', '.join(SHOWN)} FROM {table}{condition} ORDER BY started DESC, id DESC LIMIT ?",  # noqa: S608
                (*values, most),
            )
            for row in rows:
                yield StoredRun.of(row)
            if len(rows) < most:
                return
            if left is not None:
                left -= most
            last = tuple(rows[-1][SHOWN.index(name)] for name in ("started", "id"))  # as they are there
            if where[-1:] == [_BEHIND]:
                values[-2:] = last
            else:
                where.append(_BEHIND)
                values += last

    def live_output(self, run_id: str, after: int) -> list[tuple[int, str, bytes]]:
        """See `Database`."""
        return self.read(
            "SELECT number, stream, data FROM live_output WHERE run = ? AND number >= ? ORDER BY number",
            (storable(run_id), after),
        )
