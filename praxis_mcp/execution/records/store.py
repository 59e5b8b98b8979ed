"""What is kept of runs beyond the life of a server: a directory with the database, and with a directory for each run
whose streams are long or which left files.

Servers and commands of the same user share it. Each holds a lock of its own on a file in it for as long as it lives;
the kernel lets go of that with the process, and so the next one knows which runs will never end.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from praxis_mcp.errors import RecordsUnavailable, SettingsError
from praxis_mcp.execution.records.access import RecordAccess
from praxis_mcp.execution.records.audit import AuditTrail, line_of, translated
from praxis_mcp.execution.records.database import Bounds, Database
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.shared_files import forget_unnamed
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.execution.records.writer import CLOSE_TIMEOUT, RecordWriter
from praxis_mcp.plans.secrets import read_source
from praxis_mcp.settings.sections import RecordSettings
from praxis_mcp.support.files import read_regular
from praxis_mcp.support.installation import install_command_for_extra
from praxis_mcp.support.logs import logger
from praxis_mcp.support.scratch import remove_directory

try:
    import fcntl
except ImportError:  # Windows: runs of a killed server stay open until they are too old
    fcntl = None

DATABASE = "runs.db"
KEY = "key"
_KEY = re.compile(rb"[0-9a-f]{64}")
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")
_ABANDONED = 2 * 86_400.0
"""Seconds after which a run's directory that no record names was left by a killed server: twice the longest timeout."""
_MOST_MACHINE = 256
_SWEPT_EACH = 60
"""A look for such directories is made with each so many looks at the bounds, the second one first."""


class RecordStore:
    """The lasting records, as a server sees them.

    Args:
        directory: where they are.
        settings: how much is kept.

    Attributes:
        server: id of this process among those that write here.
        kept_at: where the files of its runs are; see `StoredRun`.
        writer: takes what is to be kept.
        access: answers what is asked of it, by a connection of its own.
        callers: the same for what callers have under way: calls wait for it, and nothing of it need outlive a power
            failure.
        files: see `files_in`.
        looks: the same for people who look at runs: what takes long to find for them keeps no task waiting.
        leaves_tasks: whether there are tasks that the next server is to run again.
    """

    def __init__(self, directory: Path, settings: RecordSettings) -> None:
        self.directory = directory
        self.files = files_in(directory)
        self.server = uuid.uuid4().hex
        self.kept_at = place_name(directory)
        self._trail = AuditTrail(directory, settings.audit_max_bytes) if settings.audit else None
        self.writer = RecordWriter(self._connect, self._upkeep, self._stay, self._leave, self._trail)
        self._settings = settings.model_copy(update={"directory": directory})
        self._bounds = bounds_of(settings)
        self.access = RecordAccess(self._connect_durably)
        self.callers = RecordAccess(self._connect)
        self.looks = RecordAccess(self._connect)
        self.leaves_tasks = False
        self._lock: int | None = None
        self._holding = threading.Lock()
        self._looks = 0
        self._key: bytes | None = None
        self._lacks_key = False

    @property
    def is_shared(self) -> bool:
        """Whether servers on other machines share the database."""
        return self._settings.url is not None

    def prepare(self) -> None:
        """Make the directories. Blocks, if only shortly.

        Raises:
            OSError: they cannot be made, or not be written.
            SettingsError: the driver of their database is missing.
        """
        check_driver(self._settings)
        for directory in (self.directory, self.files, self.directory / "servers"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise OSError(errno.EROFS, "it cannot be written", str(directory))
        found = self.directory.stat()
        if os.name == "posix" and (found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022):
            logger.warning("others can write to {}, and so change what is recorded", self.directory)

    def key(self) -> bytes | None:
        """A secret of this store's own, by which values are hashed in it: nobody without it can find a value by trying
        likely ones. None where it cannot be read or made. Blocks, if only shortly."""
        if self._key is None:
            try:
                self._key = _read_key(self.directory / KEY)
            except OSError as exc:
                if not self._lacks_key:
                    logger.warning("arguments are not recorded: {}: {}", self.directory / KEY, exc.strerror)
                self._lacks_key = True
        return self._key

    def close(self) -> None:
        """Write what is left. Blocks, if only shortly."""
        accesses, until = (self.looks, self.callers, self.access), time.monotonic() + CLOSE_TIMEOUT
        for access in accesses:
            access.close()
        for access in accesses:  # a database that hangs has all of them wait at the same time
            access.wait(max(0.0, until - time.monotonic()))
        self.writer.close()
        if self._lock is not None:
            if not self.leaves_tasks:  # else it says that their server has ended
                with suppress(OSError):  # the next process finds that nobody holds it
                    (self.directory / "servers" / self.server).unlink()
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def gone(self, database: Database, server: str) -> Iterator[bool]:
        """Whether the process of that id has ended; until the end of the body, no other says so. Blocks, if only
        shortly."""
        if fcntl is None:
            yield False
            return
        with (
            translated(_name(self.directory)),
            _gone(self.directory / "servers", server, database.is_silent) as is_gone,
        ):
            yield is_gone

    def close_lost_runs(self, database: Database) -> None:
        """Say of the runs of servers that are gone that they are lost. Blocks.

        Raises:
            RecordsUnavailable: that cannot be written.
        """
        close_lost_runs(database, self.directory, self._trail, self.server)

    def _connect(self) -> SqlDatabase:
        database = open_database(self._settings)
        # Before the first run or task of this server is in the database.
        with self._holding, translated(_name(self.directory)):
            if self._lock is None and fcntl is not None:
                self._lock = _hold(self.directory / "servers" / self.server)
        self._stay(database)
        return database

    def _connect_durably(self) -> SqlDatabase:
        database = self._connect()
        database.commit_durably()
        return database

    def _stay(self, database: Database) -> None:
        database.keep_alive(self.server)

    def _leave(self, database: Database) -> None:
        database.leave(self.server)

    def _upkeep(self, database: Database) -> Iterator[None]:
        try:
            self.close_lost_runs(database)
        finally:  # whatever keeps that from being done, the store stays bounded
            while ids := database.remove_beyond(self._bounds, time.time()):
                for run_id in ids:
                    remove_files(self.files, run_id)
                yield
        # Which there seldom are, and may take long to look for: not in a command that soon ends.
        if self._looks % _SWEPT_EACH == 1:
            self._remove_abandoned(database)
        self._looks += 1

    def _remove_abandoned(self, database: Database) -> None:
        if isinstance(database, SqlDatabase):
            database.forget_callers(time.time())
            if self.is_shared:
                forget_unnamed(database)
        oldest = time.time() - _ABANDONED
        with translated(_name(self.directory)):
            for directory in self.files.iterdir():
                with suppress(FileNotFoundError):  # another server is at it
                    if directory.stat().st_mtime < oldest and database.find(directory.name) is None:
                        remove_directory(directory)


def place_name(directory: Path) -> str:
    """What records call a directory of records, in a database that several machines share."""
    return f"{socket.gethostname()}:{directory}"


def files_in(directory: Path) -> Path:
    """Where a directory of records has the directories of runs. The links that lead there are its owner's, and are
    followed now; from there on, `support.rooted.open_kept` follows none."""
    return Path(os.path.realpath(directory / "files"))


def bounds_of(settings: RecordSettings) -> Bounds:
    """The bounds that the settings give."""
    return Bounds(settings.max_age * 86_400, settings.max_runs, settings.max_bytes)


def open_database(settings: RecordSettings, *, create: bool = True) -> SqlDatabase:
    """The database of the records, where the settings say: a file in their directory, or that of a URL.

    Args:
        settings: they name it.
        create: False refuses a file that is not there.

    Raises:
        RecordsUnavailable: it cannot be opened.
    """
    if settings.url is not None:
        try:
            check_driver(settings)
        except SettingsError as exc:
            raise RecordsUnavailable(exc.message, remedy=exc.remedy) from exc
        from praxis_mcp.execution.records.postgres import PostgresDatabase

        return PostgresDatabase(settings.url.get_secret_value(), _password(settings))
    from praxis_mcp.execution.records.sqlite import SqliteDatabase

    assert settings.place is not None
    return SqliteDatabase(settings.place / DATABASE, create=create)


def check_driver(settings: RecordSettings) -> None:
    """Look whether what the settings' database needs is installed.

    Raises:
        SettingsError: it is not.
    """
    if settings.url is not None and importlib.util.find_spec("psycopg") is None:
        raise SettingsError(
            "records.url names a PostgreSQL database, which needs the package psycopg.",
            remedy=f"Install it: {install_command_for_extra('postgres')}",
        )


def _password(settings: RecordSettings) -> str | None:
    if settings.password is None:
        return None
    try:
        return read_source("records.password", settings.password)
    except SettingsError as exc:
        raise RecordsUnavailable(str(exc), remedy=exc.remedy) from exc


def close_lost_runs(database: Database, directory: Path, trail: AuditTrail | None = None, own: str = "") -> None:
    """Say of the runs of servers that are gone that they are lost. Blocks.

    Args:
        database: has the runs.
        directory: of the records.
        trail: where a line is appended for each.
        own: the id of this process, where it is one of those that write.

    Raises:
        RecordsUnavailable: that cannot be written.
    """
    if fcntl is None:
        return
    with translated(_name(directory)):
        held = {path.name for path in (directory / "servers").iterdir()} if (directory / "servers").is_dir() else set()
    for server in {*database.servers_of_open_runs(), *held} - {own}:
        with _gone(directory / "servers", server, database.is_silent) as is_gone:
            if is_gone:
                lost = database.close_runs_of(server, time.time(), partial(_append_lost, trail))
                if lost:
                    logger.info("{} runs of a server that is gone are recorded as lost", len(lost))
                # It says that this server has ended, which the database learns from its silence only later.
                if server in held and _ID.fullmatch(server) and not database.has_tasks_of(server):
                    with suppress(OSError):
                        (directory / "servers" / server).unlink()


def _append_lost(trail: AuditTrail | None, runs: list[StoredRun]) -> None:
    if runs and trail is not None:
        trail.append([line_of(run) for run in runs])


def remove_files(files: Path, run_id: str) -> None:
    """Remove the directory of a run, where it has one. Blocks."""
    # What a database holds leads nowhere else: it may have been somebody else's, or be damaged.
    if _ID.fullmatch(run_id) and os.path.lexists(files / run_id):
        remove_directory(files / run_id)


def _read_key(file: Path) -> bytes:
    while True:
        with suppress(FileNotFoundError):
            text = read_regular(file, 64, follow=False)
            if _KEY.fullmatch(text) is None:
                raise OSError(errno.EINVAL, "it is damaged; without it, another is made")
            return bytes.fromhex(text.decode())
        fresh = file.with_name(f"{KEY}.{uuid.uuid4().hex}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as out:
                out.write(secrets.token_hex(32))
            with suppress(FileExistsError):  # another process was first, and its key is the one
                file.hardlink_to(fresh)
        finally:
            fresh.unlink()


def _machine() -> bytes:
    return socket.gethostname().encode(errors="surrogateescape")[:_MOST_MACHINE]


def _hold(file: Path) -> int:
    """A new file that this process has locked.

    Raises:
        OSError: it cannot be made.
    """
    assert fcntl is not None
    while True:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock), file.stat()):
                os.write(lock, _machine())
                return lock
        except FileNotFoundError:  # somebody met it before it was locked
            pass
        os.close(lock)


@contextmanager
def _gone(servers: Path, server: str, is_silent: Callable[[str], bool]) -> Iterator[bool]:
    """Whether the process that held the file of that name is gone; to be removed within the body. Of what is no such
    file (another user's, a directory, a link) nothing is known: it is taken for one that lives. A server without a file
    was on another machine, if it lives: the database says. It says so too of one whose file names another machine: not
    every file system that machines share has locks which they share."""
    assert fcntl is not None
    file = servers / server
    try:
        if not _ID.fullmatch(server):
            raise FileNotFoundError
        lock = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        yield is_silent(server)
        return
    except OSError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        machine = os.pread(lock, _MOST_MACHINE, 0)  # not of a pipe
    except OSError:
        os.close(lock)
        yield False
        return
    try:
        yield is_silent(server) if machine and machine != _machine() else True
    finally:
        os.close(lock)


def _name(directory: Path) -> str:
    return f"The records in {directory}"
