"""A PostgreSQL server of the tests' own, from Debian's packages; one for each process that runs tests.

It keeps nothing safe (`fsync` is off) and listens in its directory, and on loopback. Its programs refuse to run as
root: there they run as another user.
"""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kit.ending import at_end
from tests.kit.ports import held_port

PLACES = "/usr/lib/postgresql"
USERS = ("postgres", "nobody")
START_TIMEOUT = 120.0
STOP_TIMEOUT = 60.0
_CONFIGURATION = """\
fsync = off
full_page_writes = off
shared_buffers = 16MB
max_connections = 60
unix_socket_directories = '{place}'
listen_addresses = '127.0.0.1'
port = {port}
"""


def programs() -> Path | None:
    """Where its programs are, the newest ones; None where there are none."""
    named = shutil.which("initdb")
    found = [path.parent for path in Path(PLACES).glob("*/bin/initdb") if os.access(path, os.X_OK)]
    found.sort(key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)
    return Path(named).resolve().parent if named else (found[-1] if found else None)


class PostgresServer:
    """A server with databases.

    Args:
        place: its directory, which is made.
        port: where it listens, in all its lives.
    """

    def __init__(self, place: Path, port: int) -> None:
        bin_directory = programs()
        assert bin_directory is not None, "the marker postgres has looked"
        self._bin = bin_directory
        self.place = place
        self._user = _user()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        place.mkdir(mode=0o755)
        if self._user is not None:
            os.chown(place, *_ids(self._user))
        self._data = place / "data"
        self._program(
            "initdb", "--pgdata", str(self._data), "--username=praxis", "--auth=trust", "--encoding=UTF8",
            "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        )  # fmt: skip
        self.port = port
        self.configure(_CONFIGURATION.format(place=place, port=self.port))

    def configure(self, lines: str) -> None:
        """Add to its configuration; in force when it starts next."""
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as out:
            out.write(lines)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._program("pg_ctl", "start", "--pgdata", str(self._data), "--wait", "--timeout", f"{START_TIMEOUT:.0f}",
                      "--log", str(self.place / "log"))  # fmt: skip

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        with suppress(subprocess.CalledProcessError):  # it does not run
            self._program("pg_ctl", "stop", "--pgdata", str(self._data), "--mode=immediate", "--wait",
                          "--timeout", f"{STOP_TIMEOUT:.0f}")  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        parent = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for process in (parent, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def database(self) -> str:
        """The URL of a fresh database."""
        name = f"records{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str = "postgres") -> str:
        """The URL of a database, by way of its socket."""
        return f"postgresql://praxis@/{name}?host={self.place}&port={self.port}"

    def sql(self, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
        """Run a statement by a connection of its own; the rows that it gives."""
        import psycopg

        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    @contextmanager
    def transaction(self, statement: str, url: str) -> Iterator[None]:
        """Around what happens while a transaction of somebody else is open that has run that statement."""
        import psycopg

        with psycopg.connect(url) as connection:
            connection.execute(statement.encode())
            yield

    def _program(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / name), *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_TIMEOUT,
            cwd="/",
            user=self._user,
            group=pwd.getpwnam(self._user).pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
        )


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return "nobody"


def _ids(user: str) -> tuple[int, int]:
    found = pwd.getpwnam(user)
    return found.pw_uid, found.pw_gid


@contextmanager
def running_server(more: str = "") -> Iterator[PostgresServer]:
    """A server of a test's own, to be stopped and killed; `more` are lines of its configuration."""
    with tempfile.TemporaryDirectory(prefix="praxis-pg-") as place, held_port() as port:
        Path(place).chmod(0o755)
        server = PostgresServer(Path(place) / "pg", port)
        server.configure(more)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@functools.cache
def shared_server() -> PostgresServer:
    """The one that tests of this process share."""
    return at_end.enter_context(running_server())
