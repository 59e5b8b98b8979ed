"""Records in PostgreSQL, which several servers share: with `pipeline`, the one module that knows `psycopg`.

One connection for each process, used by one thread. What a batch of records needs is sent at once
(https://www.postgresql.org/docs/current/libpq-pipeline-mode.html), so that it costs one round trip and one commit.
"""

from __future__ import annotations

import functools
import math
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.outcomes import LOST
from praxis_mcp.execution.records.caller_calls import LEASE, Claim, Grant
from praxis_mcp.execution.records.database import Pieces, migrations
from praxis_mcp.execution.records.pipeline import Pipeline
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.sql import INSERT, INSERT_PIECE, RunSql, SqlDatabase

SCHEMA = "praxis_mcp"
HEARTBEAT = 15.0
"""Seconds between two signs of life of a server."""
SILENCE = 60.0
"""Seconds without one, by the database's own clock, after which a server counts as gone. After a restart of the
database all have as long to come back; and where it, or the way to it, was gone, or its clock has been set, until one
server has given signs for as long without a gap."""
_STARTED = "pg_postmaster_start_time()"
_OUTAGE = 600.0
"""The same where no server at all gives a sign: a command alone cannot know whether one could arrive."""
_FORGOTTEN = 86_400.0
CONNECTION_TIMEOUT = 5
"""Seconds, for each host that the URL names."""
STATEMENT_TIMEOUT = 10.0
"""Seconds for one statement, in the server; and for a lock that another holds."""
ANSWER_TIMEOUT = 15.0
"""Seconds for all that is sent together, here: a database that hangs, or a network that swallows, says nothing."""
_MIGRATION_LOCK, _TURNS_LOCK = 0x7072617869730001, 0x7072617869730002
_MIGRATION_TIMEOUT = 600.0
_OF_VALUES = ("22", "23", "54")
"""Classes of errors that the same values would meet again: data exceptions, constraints, limits of the program
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""
_NEVER = 10**9
_SOCKETS, _LOOPBACK = ("/", "@"), ("", "localhost", "127.0.0.1", "::1")
_KNOWS_SYSTEM = 160000
"""The libpq that takes ``sslrootcert=system``."""
_INSERT_ENDED = f"WITH gone AS (DELETE FROM live_output WHERE run = ?) {INSERT}"  # noqa: S608 - our own names
# As `caller_calls.settle`. All of it reads the one row, which is locked by then: of two servers at once, the second
# sees what the first has written (https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED).
# OFFSET 0 keeps it from being planned as one expression, in which everything is found out again and again.
_CLAIM = f"""
UPDATE caller_calls AS kept SET (holders, allowance, at, granted) = (
    SELECT CASE WHEN is_kept AND held + granted > 0
            THEN others || jsonb_build_object(server, jsonb_build_array(held + granted, now + {LEASE}))
            ELSE others END,
        left_over - granted, now, granted
    FROM (
        SELECT *, greatest(0, least(wanted, most - held - busy, floor(left_over)))::int AS granted
        FROM (
            SELECT given.*, least(burst, kept.allowance + greatest(0, now - kept.at) * each) AS left_over,
                coalesce(alive.others, '{{}}'::jsonb) AS others, coalesce(alive.busy, 0) AS busy
            FROM (
                SELECT extract(epoch FROM clock_timestamp())::float8 AS now, ?::text AS server, ?::int AS held,
                    ?::int AS wanted, ?::int AS most, ?::float8 AS burst, ?::float8 AS each, ?::boolean AS is_kept
                OFFSET 0
            ) AS given, LATERAL (
                SELECT jsonb_object_agg(key, value) AS others, sum((value->>0)::int) AS busy
                FROM jsonb_each(kept.holders)
                WHERE key <> server AND (value->>1)::float8 > now AND (value->>1)::float8 <= now + {LEASE}
            ) AS alive OFFSET 0
        ) AS found OFFSET 0
    ) AS decided
) WHERE caller = ? RETURNING granted, allowance"""  # noqa: S608 - our own number
_NEW_CALLER = "INSERT INTO caller_calls VALUES (?, '{}', 0, 0, 0) ON CONFLICT DO NOTHING"
_NO_LIMIT = 2**30

_SESSION = {
    "search_path": SCHEMA,
    "statement_timeout": f"{STATEMENT_TIMEOUT:g}s",
    "lock_timeout": f"{STATEMENT_TIMEOUT:g}s",
    "idle_in_transaction_session_timeout": f"{4 * ANSWER_TIMEOUT:g}s",
    # What else a role or a database may have been given otherwise, and what is written here depends on.
    "idle_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "extra_float_digits": "1",
    "jit": "off",  # which takes longer than any of these statements
    # Frequent values that seldom come together look to the planner as if few rows had to be read and sorted.
    "enable_bitmapscan": "off",
}
# A commit that waits for the disk takes as long as all else of a record. What a crash of the database loses otherwise,
# the writer still has. Where somebody has said how safe a commit is to be, or a standby has to have it, that holds.
_NO_WAIT = (
    "SELECT set_config('synchronous_commit', 'off', false), 3 * extract(epoch FROM "
    "current_setting('wal_writer_delay')::interval)::float8 FROM pg_settings WHERE name = 'synchronous_commit' "
    "AND source = 'default' AND current_setting('synchronous_standby_names') = ''"
)
"""Gives the seconds after which such a commit is on the disk (https://www.postgresql.org/docs/current/wal-async-commit.html)."""
_MARGIN = 1.0


class _Connection(psycopg.Connection[Any]):
    """One whose waits end."""

    until = float("inf")

    def wait(self, gen: Any, *args: Any, **more: Any) -> Any:
        """See the base."""
        return super().wait(_bounded(gen, self.until), *args, **more)


def _bounded(gen: Any, until: float) -> Generator[Any, Any, Any]:
    ready = None
    while True:
        try:
            state = gen.send(ready)
        except StopIteration as end:
            return end.value
        ready = yield state
        if not ready and time.monotonic() > until:
            raise psycopg.OperationalError("it does not answer")


class PostgresDatabase(SqlDatabase):
    """A database by its URL; see `Database`. Its tables are in a schema of their own, `SCHEMA`.

    Args:
        url: ``postgresql://USER@HOST:PORT/NAME?PARAMETER=VALUE``
            (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING).
        password: where it is not in the URL, and not where libpq looks by itself.

    Raises:
        RecordsUnavailable: it cannot be reached, refuses, or is of a later version.
    """

    _of_runs = ("live_output", "run_files")
    # Runs that have two frequent values but never both: a row is read only where an index says that it has both. The
    # values themselves may be too long for one index; this is what PostgreSQL's own hash indexes keep of them.
    _digest = "hashtext"
    _forget_holder = (
        "UPDATE caller_calls SET holders = holders - CAST(? AS TEXT) WHERE jsonb_exists(holders, CAST(? AS TEXT))"
    )
    heartbeat = HEARTBEAT

    def __init__(self, url: str, password: str | None = None) -> None:
        self._shown = "The database of the records"
        self._alive_at = float("-inf")
        self._prepared: dict[str, bytes] = {}
        parameters = connection_parameters(url)
        self._shown = f"The database {_shown(parameters)}"
        if password is not None:
            parameters["password"] = password
        with self._translated():
            # No statement of a pipeline is prepared: psycopg would take one for prepared that the server has skipped
            # behind one that failed.
            self._connection = _Connection.connect(autocommit=True, prepare_threshold=_NEVER, **parameters)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    @contextmanager
    def transaction(self) -> Iterator[RunSql]:
        """See the base."""
        with self._translated(), self._bounded(ANSWER_TIMEOUT):
            try:
                with self._connection.pipeline():
                    self._run("BEGIN")
                    yield self._run
                    self._run("COMMIT")
            except BaseException:
                with suppress(psycopg.Error):
                    if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                        self._connection.execute("ROLLBACK")
                raise

    def write(
        self, runs: Iterable[StoredRun], pieces: Pieces = (), before: Callable[[], object] = lambda: None
    ) -> None:
        """See the base. What is sent up to one "sync" is one transaction, in one round trip
        (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING); the database works on it
        while `before` does."""
        with self._translated():
            batch = Pipeline(self._connection.pgconn, ANSWER_TIMEOUT, self._prepared)
            for run in runs:
                if run.ended is None:
                    batch.add(INSERT, run.values())
                else:
                    batch.add(_INSERT_ENDED, (run.id, *run.values()))
            for run_id, stream, data in pieces:
                batch.add(INSERT_PIECE, (run_id, stream, data, run_id, run_id, LOST))
            try:
                batch.begin()
                before()
                batch.end()
            finally:
                if self._connection.pgconn.pipeline_status != psycopg.pq.PipelineStatus.OFF:
                    self._connection.close()  # it was broken off, and nobody knows what would come next

    def commit_durably(self) -> None:
        """See the base; as safe as the server makes it."""
        with self._translated(), self._bounded(ANSWER_TIMEOUT):
            self._connection.execute("RESET synchronous_commit")
        self.safe_after = 0.0

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """See the base."""
        with self._translated(), self._bounded(ANSWER_TIMEOUT):
            return self._run(statement, values).fetchall()

    def claim_calls(self, claim: Claim) -> Grant:
        """See the base."""
        rate, most = claim.rate, _NO_LIMIT if claim.most is None else claim.most
        # Without a rate, it is full at each claim.
        burst, each = (rate.most, rate.each) if rate is not None else (_NO_LIMIT, _NO_LIMIT)
        values = (claim.server, claim.held, claim.wanted, most, burst, each, claim.most is not None, claim.caller)
        with self._translated(), self._bounded(ANSWER_TIMEOUT):
            while True:
                # By itself: one statement, which has been prepared, and no word of it on the disk.
                rows = self._connection.execute(_in_its_words(_CLAIM), values, prepare=True).fetchall()
                if rows:
                    ((granted, left),) = rows
                    return Grant(granted, left if rate is not None else math.inf)
                self._connection.execute(_in_its_words(_NEW_CALLER), (claim.caller,))

    def close(self) -> None:
        """See the base."""
        with self._translated():
            self._connection.close()

    def keep_alive(self, server: str) -> None:
        """See the base."""
        if time.monotonic() - self._alive_at >= HEARTBEAT / 2:
            with self.transaction() as run_sql:
                run_sql("DELETE FROM servers WHERE seen < clock_timestamp() - make_interval(secs => ?)", (_FORGOTTEN,))
                run_sql(
                    "INSERT INTO servers (id, seen) VALUES (?, clock_timestamp()) "
                    "ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, without_gap_since = CASE "
                    "WHEN servers.seen < excluded.seen - make_interval(secs => ?) THEN excluded.seen "
                    "ELSE servers.without_gap_since END",
                    (server, SILENCE / 2),
                )
            self._alive_at = time.monotonic()

    def leave(self, server: str) -> None:
        """See the base."""
        with self.transaction() as run_sql:
            run_sql("DELETE FROM servers WHERE id = ?", (server,))

    def take_turns(self, run_sql: RunSql) -> None:
        """See the base."""
        run_sql("SELECT pg_advisory_xact_lock(?)", (_TURNS_LOCK,))

    def is_silent(self, server: str) -> bool:
        """See the base."""
        ((silent,),) = self.read(
            f"SELECT begin > {_STARTED} AND NOT EXISTS "  # noqa: S608 - our own
            "(SELECT 1 FROM servers WHERE id = ? AND seen > begin) AND ("
            "NOT EXISTS (SELECT 1 FROM servers WHERE id = ?) "
            "OR EXISTS (SELECT 1 FROM servers WHERE without_gap_since < begin AND seen > recently) "
            "OR NOT EXISTS (SELECT 1 FROM servers WHERE seen > now - make_interval(secs => ?))) "
            "FROM (SELECT now, now - make_interval(secs => ?), now - make_interval(secs => ?) "
            "FROM (SELECT clock_timestamp()) AS clock (now)) AS silence (now, begin, recently)",
            (server, server, _OUTAGE, SILENCE, SILENCE / 2),
        )
        return silent

    def _run(self, statement: str, values: Sequence[Any] = ()) -> Any:
        return self._connection.execute(_in_its_words(statement), values)

    def _prepare(self) -> None:
        known = migrations("postgres")
        with self._bounded(ANSWER_TIMEOUT):
            self._set(_SESSION)
            for _, seconds in self._connection.execute(_NO_WAIT).fetchall():
                self.safe_after = seconds + _MARGIN
            self._check_encoding()
            version = self._version()
        if version > known[-1][0]:
            raise RecordsUnavailable(
                f"{self._shown} was made by a later version of praxis-mcp.",
                remedy="Use that version, or name another database (records.url).",
            )
        if version < known[-1][0]:
            with self._bounded(_MIGRATION_TIMEOUT):
                longer = f"{_MIGRATION_TIMEOUT:g}s"
                self._set({"statement_timeout": longer, "lock_timeout": longer})
                # Not one of the transaction: what it sees of tables may be older than when it got the lock.
                self._connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
                with self._connection.transaction():
                    self._migrate(known)
                self._connection.execute("SELECT pg_advisory_unlock(%s)", (_MIGRATION_LOCK,))
                self._set(_SESSION)

    def _set(self, values: Mapping[str, str]) -> None:
        # Older servers do not know all of them.
        self._connection.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value) "
            "WHERE current_setting(name, true) IS NOT NULL",
            ([*values], [*values.values()]),
        )

    def _migrate(self, known: list[tuple[int, list[str]]]) -> None:
        version = self._version()  # again, now that nobody else changes it
        if version == 0:
            if self._connection.execute("SELECT to_regnamespace(%s)", (SCHEMA,)).fetchall() == [(None,)]:
                self._connection.execute(f"CREATE SCHEMA {SCHEMA}")  # which needs a right even where it is there
            self._connection.execute("CREATE TABLE migrations (number INTEGER NOT NULL PRIMARY KEY)")
        for number, statements in known:
            if number > version:
                for statement in statements:
                    self._connection.execute(statement.encode())
                self._connection.execute("INSERT INTO migrations (number) VALUES (%s)", (number,))

    def _version(self) -> int:
        if self._connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.migrations",)).fetchall() == [(None,)]:
            return 0
        ((version,),) = self._connection.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchall()
        return version

    def _check_encoding(self) -> None:
        ((encoding,),) = self._connection.execute("SHOW server_encoding").fetchall()
        if encoding != "UTF8":
            raise RecordsUnavailable(
                f"{self._shown} has the encoding {encoding}, which cannot hold every text.",
                remedy="CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0.",
            )

    @contextmanager
    def _bounded(self, seconds: float) -> Iterator[None]:
        self._connection.until = time.monotonic() + seconds
        yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as exc:
            if (exc.sqlstate or "")[:2] in _OF_VALUES or (isinstance(exc, psycopg.DataError) and not exc.sqlstate):
                raise ValueError(f"PostgreSQL refuses what a record holds ({exc.sqlstate})") from exc
            # Its first line: what follows may hold values.
            text = exc.diag.message_primary or str(exc).strip().partition("\n")[0]
            raise RecordsUnavailable(f"{self._shown}: {text}.", remedy=_remedy(exc)) from exc


def connection_parameters(url: str) -> dict[str, Any]:
    """What libpq is given for a URL.

    Raises:
        RecordsUnavailable: it cannot be read.
    """
    try:
        parameters: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        # Its words may hold a part of the password.
        raise RecordsUnavailable(
            "records.url is not the URL of a PostgreSQL database.",
            remedy="Write postgresql://USER@HOST:PORT/NAME, with % escapes for what is special in a URL.",
        ) from None
    parameters.setdefault("connect_timeout", CONNECTION_TIMEOUT)
    parameters.setdefault("application_name", "praxis-mcp")
    parameters["client_encoding"] = "UTF8"
    if (
        "," in f"{parameters.get('host', '')}{parameters.get('hostaddr', '')}"
        and "PGTARGETSESSIONATTRS" not in os.environ
    ):
        # Else the first that answers is taken, which after a failover may be one that can only be read.
        parameters.setdefault("target_session_attrs", "read-write")
    says_itself = {"sslmode", "service"} & {*parameters} or {"PGSSLMODE", "PGSERVICE"} & {*os.environ}
    if not says_itself and not _is_here(parameters):
        # libpq's own default would send what is recorded, and a password, to any machine that answers.
        parameters["sslmode"] = "verify-full"
        if psycopg.pq.version() >= _KNOWS_SYSTEM and not Path("~/.postgresql/root.crt").expanduser().exists():
            parameters.setdefault("sslrootcert", "system")
    return parameters


def _is_here(parameters: Mapping[str, Any]) -> bool:
    """Whether the database is on this machine, where nobody listens in between. An address says where libpq goes, and a
    name next to it only who must be there: where either is another machine's, so is the database."""
    names = parameters.get("host") or os.environ.get("PGHOST", "")
    addresses = parameters.get("hostaddr") or os.environ.get("PGHOSTADDR", "")
    return all(host.startswith(_SOCKETS) or host in _LOOPBACK for host in f"{names},{addresses}".split(","))


def _shown(parameters: dict[str, Any]) -> str:
    host = parameters.get("host") or parameters.get("hostaddr") or "on this machine"
    return f"{parameters.get('dbname', '')} at {host}"


@functools.lru_cache(maxsize=256)
def _in_its_words(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _remedy(exc: psycopg.Error) -> str:
    match exc:
        case psycopg.errors.InsufficientPrivilege():
            return (
                f"GRANT CREATE ON DATABASE … to its user, or make the schema {SCHEMA} for it. Where another user has "
                f"made the tables: GRANT USAGE ON SCHEMA {SCHEMA}, and SELECT, INSERT, UPDATE, DELETE ON ALL TABLES in "
                "it; a later version, which changes them, has to be started by their owner first."
            )
        case psycopg.errors.ReadOnlySqlTransaction():
            return "It is a standby, or set to be read only; name the one that takes writes in records.url."
        case psycopg.errors.DiskFull():
            return "Free space where the database is."
        case _ if "certificate" in str(exc) or "SSL" in str(exc):
            return "Name who vouches for it in records.url: sslrootcert=FILE. sslmode=disable trusts the network."
        case _ if re.search('database ".*" does not exist', str(exc)):
            return "Create it: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, with its user as the owner."
        case _:
            return "See whether it runs, and whether records.url and records.password are right."
