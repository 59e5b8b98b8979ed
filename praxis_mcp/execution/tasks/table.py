"""The table `tasks`, in SQL that SQLite and PostgreSQL both understand. Everything here blocks, and belongs to the
thread that opened the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from praxis_mcp.errors import QueueFull
from praxis_mcp.execution.records.row import storable, storable_name
from praxis_mcp.execution.records.sql import RunSql, SqlDatabase
from praxis_mcp.execution.tasks.task import CANCELLED, COLUMNS, COMPLETED, FAILED, Outcome, StoredTask

_ALL = ", ".join(COLUMNS)
_INSERT = f"INSERT INTO tasks ({_ALL}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - our own names
_SELECT = f"SELECT {_ALL} FROM tasks WHERE "  # noqa: S608
_AT_ONCE = 500
_LATE = 60.0
"""Seconds beyond its time after which a task is removed that its server should have ended."""


@dataclass(frozen=True, slots=True)
class TaskBounds:
    """How many are kept, ended ones included.

    Attributes:
        per_caller: of one caller.
        in_all: of all.
        size: bytes of all results together.
    """

    per_caller: int
    in_all: int
    size: int


class TaskTable:
    """Tasks in a database.

    Args:
        database: is used by one thread, as ever.
        bounds: how much is kept.
    """

    def __init__(self, database: SqlDatabase, bounds: TaskBounds) -> None:
        self._database = database
        self._bounds = bounds

    def create(self, task: StoredTask) -> None:
        """Keep a new task. Of the ended ones, the oldest give way where there are too many.

        Raises:
            QueueFull: too many have not ended.
            RecordsUnavailable: it cannot be written.
        """
        task = replace(task, caller=storable_name(task.caller))
        with self._database.transaction() as run_sql:
            self._database.take_turns(run_sql)  # else two servers at once would each have the last place
            _expire(run_sql, task.created)
            for where, values, most, whose in (
                ("caller = ?", (task.caller,), self._bounds.per_caller, "of yours "),
                ("created <= ?", (task.created + _LATE,), self._bounds.in_all, ""),
            ):
                ((count,),) = run_sql(f"SELECT count(*) FROM tasks WHERE {where}", values).fetchall()  # noqa: S608
                if count >= most:
                    gone = run_sql(
                        "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE "  # noqa: S608
                        f"{where} AND status <> 'working' ORDER BY updated LIMIT ?) RETURNING id",
                        (*values, count - most + 1),
                    ).fetchall()
                    if len(gone) < count - most + 1:
                        raise QueueFull(
                            f"{task.tool} was not started: {count} tasks {whose}have not ended yet.",
                            remedy="Try again when one has, or cancel one (tasks.max_per_caller, tasks.max_tasks).",
                        )
            run_sql(_INSERT, tuple(storable(value) for value in task.values()))

    def find(self, task_id: str) -> StoredTask | None:
        """A task."""
        rows = self._database.read(_SELECT + "id = ?", (task_id,))
        return StoredTask(*rows[0]) if rows else None

    def changes(self, ids: Sequence[str]) -> dict[str, tuple[float, str]]:
        """When these tasks were last updated, and their statuses; of those that are there."""
        if not ids:
            return {}
        places = ", ".join("?" * len(ids))
        rows = self._database.read(
            f"SELECT id, updated, status FROM tasks WHERE id IN ({places})",  # noqa: S608
            tuple(ids),
        )
        return {key: (updated, status) for key, updated, status in rows}

    def end(self, task_id: str, server: str, outcome: Outcome | None, now: float) -> bool:
        """Say how a task of that server has ended; whether it was still that server's, and working.

        Args:
            task_id, server: which.
            outcome: None is that it was cancelled.
            now: when.
        """
        status = CANCELLED if outcome is None else FAILED if outcome.error is not None else COMPLETED
        outcome = outcome or Outcome(message="It was cancelled.")
        size = len(outcome.result or "")
        values = (status, storable(outcome.message), outcome.result, outcome.error, size, now, now, task_id, server)
        with self._database.transaction() as run_sql:
            ended = run_sql(
                "UPDATE tasks SET status = ?, message = ?, result = ?, error = ?, size = ?, request = NULL, "
                "updated = ?, expires = ? + kept WHERE id = ? AND server = ? AND status = 'working' RETURNING id",
                values,
            ).fetchall()
            if ended and size:
                self._make_room(run_sql, task_id)
        return bool(ended)

    def _make_room(self, run_sql: RunSql, newest: str) -> None:
        rows = run_sql("SELECT id, size FROM tasks WHERE size > 0 ORDER BY updated", ()).fetchall()
        beyond = sum(size for _, size in rows) - self._bounds.size
        for task_id, size in rows:
            if beyond <= 0:
                return
            if task_id != newest:
                run_sql("DELETE FROM tasks WHERE id = ?", (task_id,))
                beyond -= size

    def say(self, messages: Sequence[tuple[str, str]], server: str, now: float) -> None:
        """Keep what tasks of that server are busy with: ids and texts."""
        with self._database.transaction() as run_sql:
            for task_id, message in messages:
                run_sql(
                    "UPDATE tasks SET message = ?, updated = ? WHERE id = ? AND server = ? AND status = 'working'",
                    (storable(message), now, task_id, server),
                )

    def ask_cancel(self, task_id: str) -> None:
        """Ask for the end of a task, whichever server runs it."""
        with self._database.transaction() as run_sql:
            run_sql(
                "UPDATE tasks SET is_cancelled = 1 WHERE id = ? AND status = 'working'",
                (task_id,),
            )

    def working_of(self, server: str) -> dict[str, bool]:
        """The tasks of that server which have not ended, and of each whether somebody has asked for its end."""
        rows = self._database.read(
            "SELECT id, is_cancelled FROM tasks WHERE server = ? AND status = 'working'", (server,)
        )
        return {key: bool(is_cancelled) for key, is_cancelled in rows}

    def servers(self) -> list[str]:
        """The servers that have tasks which have not ended."""
        return [
            server for (server,) in self._database.read("SELECT DISTINCT server FROM tasks WHERE status = 'working'")
        ]

    def open_of(self, server: str) -> list[StoredTask]:
        """Tasks of that server which have not ended, the oldest first; not too many at once."""
        rows = self._database.read(
            _SELECT + "server = ? AND status = 'working' ORDER BY created LIMIT ?", (server, _AT_ONCE)
        )
        return [StoredTask(*row) for row in rows]

    def claim(self, task: StoredTask, server: str, now: float) -> bool:
        """Take over a task of a server that is gone; whether no other server was first."""
        with self._database.transaction() as run_sql:
            claimed = run_sql(
                "UPDATE tasks SET server = ?, attempts = attempts + 1, updated = ?, message = ? "
                "WHERE id = ? AND server = ? AND status = 'working' RETURNING id",
                (server, now, "It runs again: the server that ran it has ended.", task.id, task.server),
            ).fetchall()
        return bool(claimed)

    def expire(self, now: float) -> None:
        """Forget tasks whose time has come."""
        with self._database.transaction() as run_sql:
            _expire(run_sql, now)


def _expire(run_sql: RunSql, now: float) -> None:
    run_sql(
        "DELETE FROM tasks WHERE expires < ? AND (status <> 'working' OR expires < ?)",
        (now, now - _LATE),
    )
