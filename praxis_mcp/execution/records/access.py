"""A second connection to the store, for what has to be answered now: tasks, and runs of other processes. The first one
belongs to the writer, which collects what it writes and keeps nobody waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records.sql import SqlDatabase

ACCESS_TIMEOUT = 10.0
"""Seconds that one piece of work may take, those before it included."""
T = TypeVar("T")
_Work = Callable[[SqlDatabase], Any]


class RecordAccess:
    """Work on the database, one piece after another, in a thread of its own.

    Args:
        connect: opens the database, in that thread.
    """

    def __init__(self, connect: Callable[[], SqlDatabase]) -> None:
        self._connect = connect
        self._waiting: SimpleQueue[tuple[_Work, Future[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    async def run(self, work: Callable[[SqlDatabase], T]) -> T:
        """What `work` returns. It is done even where its caller is cancelled meanwhile.

        Raises:
            RecordsUnavailable: the database cannot be used, or not in time.
        """
        done = self.submit(work)
        with anyio.move_on_after(ACCESS_TIMEOUT):
            return await asyncio.shield(asyncio.wrap_future(done))
        raise RecordsUnavailable(
            f"The store of run records did not answer within {ACCESS_TIMEOUT:g} s.",
            remedy="See whether its disk hangs, or another process holds it.",
        )

    def submit(self, work: Callable[[SqlDatabase], T]) -> Future[T]:
        """Have `work` done, whenever that can be; what comes of it is set in the thread.

        Raises:
            RecordsUnavailable: the store has been closed.
        """
        if self._is_closed:
            raise RecordsUnavailable("The store of run records has been closed.")
        if self._thread is None:
            # A disk that hangs does not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="praxis-mcp store", daemon=True)
            self._thread.start()
        done: Future[T] = Future()
        self._waiting.put((work, done))
        return done

    def close(self) -> None:
        """Take no more work, and let go of the database once what was begun has been done."""
        self._is_closed = True
        self._waiting.put(None)

    def wait(self, timeout: float) -> None:
        """Wait until that has been done, for `timeout` seconds at most. Blocks."""
        if self._thread is not None:
            self._thread.join(timeout)

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        database: SqlDatabase | None = None
        while (item := self._waiting.get()) is not None:
            work, done = item
            if not done.set_running_or_notify_cancel():
                continue
            try:
                if database is None:
                    database = self._connect()
                done.set_result(work(database))
            except BaseException as exc:  # noqa: BLE001 - it belongs to who asked
                if isinstance(exc, RecordsUnavailable):  # it may be another file by now, or its server be back
                    database = _let_go(database)
                done.set_exception(exc)
        _let_go(database)


def _let_go(database: SqlDatabase | None) -> None:
    if database is not None:
        with suppress(RecordsUnavailable):
            database.close()
