"""Statements that go to PostgreSQL together, by libpq itself: psycopg's cursors take as long for a record as the
database does."""

from __future__ import annotations

import itertools
import selectors
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import pq

_BYTEA = 17
"""The number of its type (https://www.postgresql.org/docs/current/catalog-pg-type.html)."""
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""For one descriptor, of any number; Windows, which has no poll, has no such numbers either."""
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_numbers = itertools.count()
_DONE = frozenset({pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK})


class Pipeline:
    """One transaction in one round trip (https://www.postgresql.org/docs/current/libpq-pipeline-mode.html): whole, or
    not at all. Statements have ``?`` for values.

    Args:
        connection: is idle, and used by nobody else until `end`.
        timeout: seconds that the database may take to accept it all, and as many to commit it. What is done
            between does not count.
        prepared: statements that the session knows, and their names; is added to.
    """

    def __init__(self, connection: pq.abc.PGconn, timeout: float, prepared: dict[str, bytes]) -> None:
        self._connection = connection
        self._timeout = timeout
        self._until = 0.0
        self._prepared = prepared
        self._new: dict[str, bytes] = {}
        self._work: list[tuple[str, list[bytes | None], list[bool]]] = []

    def add(self, statement: str, values: Sequence[Any]) -> None:
        """Add a statement.

        Raises:
            ValueError: a text holds what UTF-8 does not, or NUL, at which libpq would end it.
            TypeError: it is of another kind than text, bytes, a number or None.
        """
        is_binary = [isinstance(value, bytes) for value in values]
        self._work.append((statement, [_written(value) for value in values], is_binary))

    def begin(self) -> None:
        """Have the database begin with what has been added."""
        connection = self._connection
        self._until = time.monotonic() + self._timeout
        connection.enter_pipeline_mode()
        for statement, values, is_binary in self._work:
            name = self._prepared.get(statement) or self._new.get(statement) or self._prepare(statement, is_binary)
            connection.send_query_prepared(name, values, is_binary)
        self._flush()

    def end(self) -> None:
        """Commit, and wait until that is done.

        Raises:
            psycopg.Error: nothing has been done; or, where the connection broke, this is not known.
        """
        connection = self._connection
        self._until = time.monotonic() + self._timeout
        connection.pipeline_sync()
        self._flush()
        failure: psycopg.Error | None = None
        is_end = True
        while True:
            while connection.is_busy():
                self._wait(_READ)
            result = connection.get_result()
            if result is None:  # what comes next belongs to the next statement
                if is_end:
                    raise failure or psycopg.OperationalError("the connection broke")
                is_end = True
                continue
            is_end = False
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                break
            if result.status not in _DONE:
                failure = failure or _failure(result)
        connection.exit_pipeline_mode()
        if failure is not None:
            raise failure
        self._prepared |= self._new

    def _prepare(self, statement: str, is_binary: Sequence[bool]) -> bytes:
        # A name is used once: of a transaction that failed, it is not known which of its statements are prepared.
        name = b"records_%d" % next(_numbers)
        first, *others = statement.split("?")
        text = first + "".join(f"${number}{part}" for number, part in enumerate(others, 1))
        self._connection.send_prepare(name, text.encode(), [_BYTEA if each else 0 for each in is_binary])
        self._new[statement] = name
        return name

    def _flush(self) -> None:
        while self._connection.flush():
            self._wait(_READ | _WRITE)

    def _wait(self, events: int) -> None:
        left = self._until - time.monotonic()
        with _Selector() as selector:
            selector.register(self._connection.socket, events)
            ready = selector.select(left) if left > 0 else []
        if not ready:
            raise psycopg.OperationalError("it does not answer")
        if ready[0][1] & _READ:
            self._connection.consume_input()


def _written(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a text with NUL")
        return value.encode()
    if type(value) in (int, float):
        return repr(value).encode()
    raise TypeError(f"a value of the type {type(value).__name__}")


def _failure(result: pq.abc.PGresult) -> psycopg.Error:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
    try:
        return psycopg.errors.lookup(state)(text)
    except KeyError:
        return psycopg.OperationalError(text)
