"""One thread that writes records, several at once, so that no call waits for a disk longer than it must."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records.audit import AuditTrail, Line, line_of
from praxis_mcp.execution.records.database import Database, Pieces
from praxis_mcp.execution.records.live_output import LiveOutput, pieces_in
from praxis_mcp.execution.records.recent import RecentRuns
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.upkeep import Upkeep
from praxis_mcp.support.logs import logger, places
from praxis_mcp.support.tasks import resolve
from praxis_mcp.support.text import counted

BEGIN_DELAY = 0.02
"""Seconds for which the beginning of a run waits for its end, or for others: most runs are written once, and wake the
thread once."""
LIVE_EVERY = 0.5
"""Seconds between two writes of what runs that go on have put out."""
MOST_HELD = 16 * 1024 * 1024
"""Bytes of records, and of output of runs that go on, that wait for a database which cannot be written."""
MOST_LINES = 20_000
"""Lines of the audit trail that wait for a file which cannot be written."""
RETRY_FIRST, RETRY_LAST = 0.25, 15.0
"""Seconds from one try to the next, doubled each time, where the database cannot be written."""
WRITTEN_WITHIN = 0.25
"""Seconds that an answer waits for its record to be written. It takes a hundredth of that, unless the disk hangs,
another process holds the database, or the network is slow."""
FIRST_WITHIN = 5.0
"""The same while the database is opened for the first time: its driver is imported, and its tables are made."""
MOST_LATE = 4
"""Answers in a row that have waited so long for nothing, after which no other does until one is written in time."""
CLOSE_TIMEOUT = 5.0
"""Seconds that the last records may take to be written."""
_ALMOST = 0.01
"""Seconds by which a timer may be early."""


class RecordWriter:
    """Writes in the background, from the first record on until it is closed.

    What cannot be written is held, tried again, and dropped beyond `MOST_HELD`, oldest first; the log says so once
    when it begins and once when it is over.

    Args:
        connect: opens the database, in the thread.
        upkeep: is called in the thread now and then, with the database; what it gives is gone through step by step,
            and what has come meanwhile is written in between.
        stay: is called in the thread as often as the database asks for a sign of life.
        leave: is called in the thread once all is written that there will be.
        trail: where a line for each call goes; None where there is to be none.
    """

    def __init__(
        self,
        connect: Callable[[], Database],
        upkeep: Callable[[Database], Iterator[None]],
        stay: Callable[[Database], None],
        leave: Callable[[Database], None],
        trail: AuditTrail | None = None,
    ) -> None:
        self._connect = connect
        self._upkeep = Upkeep(upkeep)
        self._stay = stay
        self._leave = leave
        self._trail = trail
        self._lines: list[Line] = []
        self._lock = threading.RLock()
        # What the thread waits for; held until somebody rings. A condition would be three times the Python.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._runs: dict[str, StoredRun] = {}
        self._held = 0
        self._recent = RecentRuns(MOST_HELD)
        self._begun: dict[str, Callable[[], StoredRun]] = {}
        self._begun_at = 0.0
        self._live = LiveOutput(MOST_HELD)
        self._live_at = 0.0
        self._waiting: list[asyncio.Future[None]] = []
        self._thread: threading.Thread | None = None
        self._is_urgent = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._closing_at = 0.0
        self._is_behind = False
        self._late = 0
        self._is_opened = False
        self._dropped = 0
        self._dropped_lines = 0

    def put(self, run: StoredRun, *, wait: bool = False) -> asyncio.Future[None] | None:
        """Have a run that has ended written. Never blocks for longer than a moment.

        Args:
            run: the run; what an earlier one of this id said is replaced.
            wait: write it at once, and return what is done when it is written; None where it cannot be written now,
                for which no call has to wait.
        """
        with self._lock:
            if self._is_closing:
                return None
            self._begun.pop(run.id, None)
            self._hold(run)
            future = None
            if wait and not self._is_behind and self._late < MOST_LATE:
                future = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
            if self._trail is not None:
                self._add_line(line_of(run))
            self._live.forget(run.id)
            self._wake_now()
            if self._thread is None:
                self._start()
            return future

    @property
    def patience(self) -> float:
        """Seconds that an answer may wait for its record now."""
        return WRITTEN_WITHIN if self._is_opened or self._is_behind else FIRST_WITHIN

    def was_late(self) -> None:
        """A call has waited for its record for as long as one may. Where that goes on, the next do not wait."""
        with self._lock:
            self._late += 1
            is_new = self._late == MOST_LATE and not self._is_behind
        if is_new:
            logger.warning("records are written late, and calls no longer wait for them: the database is slow")

    def put_begun(self, run_id: str, row: Callable[[], StoredRun]) -> None:
        """Have a run that goes on written before long, unless it has ended by then, as most have.

        Args:
            run_id: its id.
            row: gives the run as it is then; is called on the event loop, or where the writer is closed.
        """
        with self._lock:
            if self._is_closing:
                return
            if not self._begun:
                self._begun_at = time.monotonic() + BEGIN_DELAY
                self._wake_after(BEGIN_DELAY)
            self._begun[run_id] = row
            if self._thread is None:
                self._start()

    def put_line(self, line: Line) -> None:
        """Have a line of a call that has no run, because it was refused, written before long."""
        with self._lock:
            if self._trail is not None and not self._is_closing:
                self._add_line(line)
                self._wake_after(BEGIN_DELAY)
                if self._thread is None:
                    self._start()

    def put_output(self, run_id: str, stream: str, data: bytes) -> None:
        """Have a piece of the output of a run that goes on written before long; dropped where there is too much."""
        with self._lock:
            if self._is_closing:
                return
            waits = bool(self._live)
            self._live.add(run_id, stream, data)
            if self._live and not waits:
                # Most runs have ended by then, and their output is written with their end.
                self._live_at = time.monotonic() + LIVE_EVERY
                self._wake_after(LIVE_EVERY)

    def wake(self) -> None:
        """Open the database and look for what killed servers left, though there is nothing to write yet."""
        with self._lock:
            if self._thread is None and not self._is_closing:
                self._start()

    def close(self) -> None:
        """Write what is left, and end. Blocks, within `CLOSE_TIMEOUT`."""
        with self._lock:
            self._hold_begun()
            self._is_closing, self._closing_at = True, time.monotonic()
            self._ring()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT)
            if self._thread.is_alive():
                logger.warning("the last records of runs could not be written within {:g} s", CLOSE_TIMEOUT)

    def _wake_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_urgent = True
        if not self._is_behind:
            self._ring()
        now = time.monotonic()
        if self._begun and now >= self._begun_at - _ALMOST:
            self._hold_begun()
        for waits, at in ((self._begun, self._begun_at), (self._live, self._live_at)):
            if waits and at - now > _ALMOST:
                self._wake_after(at - now)

    def _ring(self) -> None:
        if self._bell.locked():
            self._bell.release()

    def _wake_after(self, seconds: float) -> None:
        # To wake a thread takes longer than to write a record: a timer of the loop is cheaper, and mostly cancelled.
        loop = asyncio.get_running_loop()
        if self._timer is None or self._timer.when() > loop.time() + seconds:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(seconds, self._timer_ended)

    def _timer_ended(self) -> None:
        with self._lock:
            self._timer = None
            self._wake_now()

    def _start(self) -> None:
        # A disk that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="praxis-mcp records", daemon=True)
        self._thread.start()

    def _add_line(self, line: Line) -> None:
        self._lines.append(line)
        self._drop_lines()

    def _drop_lines(self) -> None:
        beyond = len(self._lines) - MOST_LINES
        if beyond > 0:
            del self._lines[:beyond]
            self._dropped_lines += beyond

    def _hold(self, run: StoredRun) -> None:
        before = self._runs.pop(run.id, None)
        self._held += run.weight - (before.weight if before is not None else 0)
        self._runs[run.id] = run
        while self._held > MOST_HELD and len(self._runs) > 1:
            self._drop(next(iter(self._runs)))

    def _hold_begun(self) -> None:
        begun, self._begun = self._begun, {}
        for row in begun.values():
            self._hold(row())

    def _drop(self, run_id: str) -> None:
        self._held -= self._runs.pop(run_id).weight
        self._dropped += 1

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        database: Database | None = None
        retry = RETRY_FIRST
        try:
            while True:
                try:
                    if database is None:
                        database = self._connected()
                    self._stay(database)
                    self._write_waiting(database)
                    retry = RETRY_FIRST
                    self._upkeep.go_on(database)
                    # Not before: of a user who has only commands that soon end, nobody else would keep the bounds.
                    if self._is_closing and not self._runs and not self._lines and self._has_kept_up():
                        with suppress(RecordsUnavailable):  # its silence says so before long
                            database.commit_durably()
                            self._leave(database)
                        return
                    if not self._upkeep.is_under_way:
                        self._wait_for_work(min(self._upkeep.left, database.heartbeat))
                except Exception as exc:  # noqa: BLE001 - a defect here takes neither calls nor later records with it
                    self._fell_behind(exc)
                    if self._is_closing:
                        return
                    self._hold_recent()
                    if database is not None:
                        with suppress(RecordsUnavailable):
                            database.close()
                        database = None
                    self._upkeep.break_off()
                    self._wait(retry, lambda: self._is_closing)
                    retry = min(RETRY_LAST, retry * 2)
        finally:
            with self._lock:
                self._is_behind = self._is_closing = True  # nobody would take what is put from now on
                waiting, self._waiting = self._waiting, []
            resolve(waiting)
            if lines := len(self._lines) + self._dropped_lines:
                logger.warning("the audit trail has lost {}", counted(lines, "line"))
            if runs := len(self._runs) + self._dropped:
                logger.warning("the records of {} could not be written", counted(runs, "run"))
            if database is not None:
                with suppress(RecordsUnavailable):
                    database.close()

    def _connected(self) -> Database:
        try:
            return self._connect()
        except RecordsUnavailable:
            self._append(self._taken_lines())  # which needs no database
            raise
        finally:
            self._is_opened = True

    def _taken_lines(self) -> list[Line]:
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    def _append(self, lines: list[Line]) -> RecordsUnavailable | None:
        """Append to the trail; what kept that from being done, where it could not be."""
        if self._trail is None or not lines:
            return None
        try:
            self._trail.append(lines)
        except RecordsUnavailable as exc:
            with self._lock:
                self._lines = lines + self._lines
                self._drop_lines()
            return exc
        if self._dropped_lines:
            logger.warning("the audit trail has lost {}", counted(self._dropped_lines, "line"))
            self._dropped_lines = 0
        return None

    def _has_kept_up(self) -> bool:
        # Where it takes long, nobody waits until it has ended.
        return not self._upkeep.is_under_way or time.monotonic() > self._closing_at + CLOSE_TIMEOUT / 2

    def _wait_for_work(self, at_most: float) -> None:
        self._wait(at_most, lambda: self._is_urgent or self._is_closing)

    def _wait(self, at_most: float, is_over: Callable[[], bool]) -> None:
        until = time.monotonic() + at_most
        while not is_over() and (left := until - time.monotonic()) > 0:
            self._bell.acquire(timeout=left)

    def _write_waiting(self, database: Database) -> None:
        with self._lock:
            runs, self._runs, self._held = self._runs, {}, 0
            is_due = self._live and time.monotonic() >= self._live_at - _ALMOST
            live = self._live.take() if is_due else {}
            putting_out = list(live)
            waiting, self._waiting = self._waiting, []
            self._is_urgent = False
        failure: RecordsUnavailable | None = None

        def append() -> None:
            nonlocal failure
            failure = self._append(self._taken_lines())  # with those that could not be written before

        began = time.monotonic()
        try:
            if runs or live:
                # The trail first, so that nothing is recorded that it lacks.
                self._write(database, runs, pieces_in(live), append)
            append()
        except BaseException:
            append()
            with self._lock:
                self._live.give_up(putting_out)
                newer = self._runs
                self._runs = {key: run for key, run in runs.items() if key not in newer} | newer
                self._held = sum(run.weight for run in self._runs.values())
                self._waiting = waiting + self._waiting
            raise
        if failure is not None:
            resolve(waiting)
            raise failure
        self._recent.add(runs.values(), began, database.safe_after)
        ended = [run.kept_bytes for run in runs.values() if run.ended is not None]
        self._upkeep.count(len(ended), sum(ended))
        with self._lock:
            was_behind, self._is_behind = self._is_behind, False
            dropped, self._dropped = self._dropped, 0
        resolve(waiting)
        if runs and time.monotonic() - began < WRITTEN_WITHIN:
            self._is_in_time()
        if was_behind:
            logger.info("runs are recorded again; the records of {} are lost", dropped)

    def _hold_recent(self) -> None:
        recent = self._recent.take()
        with self._lock:
            self._runs = recent | self._runs
            self._held = sum(run.weight for run in self._runs.values())
            if recent:  # of the output of others, pieces may be gone, too
                self._live.give_all_up()

    def _write(
        self, database: Database, runs: dict[str, StoredRun], pieces: Pieces, before: Callable[[], None]
    ) -> None:
        try:
            database.write(runs.values(), pieces, before)
        except RecordsUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001 - a defect, which the same rows would meet again and again
            logger.error("records of runs are lost by a defect: {}", places(exc))
            for run in runs.values():
                try:
                    database.write((run,), (), before)
                except RecordsUnavailable:
                    raise
                except Exception:  # noqa: BLE001 - this is the one
                    logger.warning("the record of run {} is lost", run.id)

    def _is_in_time(self) -> None:
        with self._lock:
            late, self._late = self._late, 0
        if late >= MOST_LATE:
            logger.info("records are written in time again")

    def _fell_behind(self, exc: Exception) -> None:
        with self._lock:
            was_behind, self._is_behind = self._is_behind, True
            waiting, self._waiting = self._waiting, []
        resolve(waiting)
        if not isinstance(exc, RecordsUnavailable):
            logger.error("records of runs are lost by a defect: {}", places(exc))
        elif not was_behind:
            logger.warning("runs are not recorded for now: {}", exc)
