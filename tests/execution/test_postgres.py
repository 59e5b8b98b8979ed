"""Records in PostgreSQL, where that is down, hangs, refuses, or is shared by several machines."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.output import Captured
from praxis_mcp.errors import RecordsUnavailable, SettingsError
from praxis_mcp.execution.records import postgres, writer
from praxis_mcp.execution.records.audit import read, verify
from praxis_mcp.execution.records.database import Bounds, Filters, migrations
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.shared_files import SHARED_PIECE, RunFile, bring, share
from praxis_mcp.execution.records.store import RecordStore, close_lost_runs, open_database
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings, load_settings
from praxis_mcp.settings.sections import RecordSettings
from tests.execution.test_record_store import log, opened, record_run, row, rows, write_by_processes_at_once
from tests.kit.postgres import PostgresServer, running_server, shared_server
from tests.kit.records import URLS, database_in, records_place, settings_of
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]
__all__ = ["log"]

PASSWORD = "correct-horse-7"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with records_place(tmp_path, "postgres") as place:
        yield place


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """One that tests may stop, and that knows a password and TLS."""
    with running_server() as server:
        certify(server.place)
        server.sql(f"CREATE ROLE guarded SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        server.configure(
            f"ssl = on\nssl_cert_file = '{server.place}/own.crt'\nssl_key_file = '{server.place}/own.key'\n"
        )
        access = f"{server.place}/access"
        Path(access).write_text(
            "local all all trust\nhostssl all guarded all scram-sha-256\nhost all praxis all trust\n"
        )
        server.configure(f"hba_file = '{access}'\n")
        server.stop()
        server.start()
        yield server


@pytest.fixture
def own_place(tmp_path: Path, own_server: PostgresServer) -> Iterator[Path]:
    place = tmp_path / "records"
    URLS[place] = own_server.database()
    yield place
    del URLS[place]


def certify(place: Path) -> None:
    """A certificate for 127.0.0.1 that nobody else vouches for, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "records")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    (place / "own.crt").write_bytes(made.public_bytes(form))
    key_file = place / "own.key"
    key_file.write_bytes(
        key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    key_file.chmod(0o600)
    owner = place.stat()
    os.chown(key_file, owner.st_uid, owner.st_gid)


async def test_calls_go_on_while_the_database_is_killed_and_are_recorded_when_it_is_back(
    own_place: Path, own_server: PostgresServer, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_LAST", 0.5)
    database_in(own_place).close()  # with its tables
    async with opened(own_place) as records:
        runs = [await record_run(records)]
        await until(lambda: len(rows(own_place)) == 1)
        await anyio.to_thread.run_sync(own_server.stop)
        try:
            began = time.monotonic()
            runs += [await record_run(records) for _ in range(50)]
            assert time.monotonic() - began < 10, "no more than a few of them wait, each a quarter of a second"
            await until(lambda: "runs are not recorded for now" in log())
        finally:
            await anyio.to_thread.run_sync(own_server.start)
        await until(lambda: "runs are recorded again; the records of 0 are lost" in log())
        runs.append(await record_run(records))
    assert {run.id for run in rows(own_place)} == {run.run_id for run in runs}
    assert log().count("runs are not recorded for now") == 1


@pytest.mark.parametrize("ends", [False, True], ids=["while-the-server-lives", "after-it-has-ended"])
async def test_what_a_killed_database_had_not_yet_written_to_its_disk_is_recorded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr(writer, "RETRY_LAST", 0.5)
    place = tmp_path / "records"
    with running_server("wal_writer_delay = 10s\n") as server:  # by itself, it writes so seldom
        URLS[place] = server.database()
        try:
            database_in(place).close()  # with its tables
            async with opened(place) as records:
                runs = [await record_run(records) for _ in range(20)]
                if not ends:
                    assert len(rows(place)) == 20, "committed before it is killed"
                    await anyio.to_thread.run_sync(server.stop)
                    await anyio.to_thread.run_sync(server.start)
                    assert len(rows(place)) < 20, "else this tests nothing"
                    runs.append(await record_run(records))
                    await until(lambda: len(rows(place)) == 21)
            await anyio.to_thread.run_sync(server.stop)
            await anyio.to_thread.run_sync(server.start)
            assert {run.id for run in rows(place)} == {run.run_id for run in runs}
        finally:
            del URLS[place]


def test_a_commit_waits_for_the_disk_where_somebody_has_said_so_and_for_tasks(place: Path) -> None:
    database, url = database_in(place), URLS[place]
    assert (database.read("SHOW synchronous_commit"), database.safe_after > 0) == ([("off",)], True)
    database.commit_durably()
    assert (database.read("SHOW synchronous_commit"), database.safe_after) == ([("on",)], 0)
    database.close()
    server = shared_server()
    name = f"careful_{secrets.token_hex(4)}"
    server.sql(f"CREATE ROLE {name} SUPERUSER LOGIN; ALTER ROLE {name} SET synchronous_commit = 'local'")
    for other, setting in (
        (f"{url}&options=-csynchronous_commit%3Don", "on"),
        (url.replace("praxis@", f"{name}@"), "local"),
    ):
        URLS[place] = other
        database = database_in(place)
        assert (database.read("SHOW synchronous_commit"), database.safe_after) == ([(setting,)], 0)
        database.close()


async def test_a_database_that_hangs_costs_a_few_calls_a_moment_and_loses_nothing(
    own_place: Path, own_server: PostgresServer, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("praxis_mcp.execution.records.postgres.ANSWER_TIMEOUT", 3.0)
    monkeypatch.setattr("praxis_mcp.execution.records.postgres.CONNECTION_TIMEOUT", 2)
    monkeypatch.setattr(writer, "RETRY_LAST", 0.5)
    database_in(own_place).close()  # with its tables
    async with opened(own_place) as records:
        runs = [await record_run(records)]
        await until(lambda: len(rows(own_place)) == 1)
        own_server.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            runs += [await record_run(records) for _ in range(100)]
            assert time.monotonic() - began < 12
            await until(lambda: "it does not answer" in log())
        finally:
            own_server.signal(signal.SIGCONT)
        await until(lambda: "runs are recorded again; the records of 0 are lost" in log())
    assert {run.id for run in rows(own_place)} == {run.run_id for run in runs}


async def test_a_transaction_of_somebody_else_that_locks_everything_costs_no_answer(
    place: Path, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "praxis_mcp.execution.records.postgres._SESSION", {"search_path": "praxis_mcp", "lock_timeout": "200ms"}
    )
    database_in(place).close()
    async with opened(place) as records:
        first = await record_run(records)
        await until(lambda: [run.id for run in rows(place)] == [first.run_id])
        with shared_server().transaction("LOCK TABLE praxis_mcp.runs", URLS[place]):
            during = [await record_run(records) for _ in range(10)]
            await until(lambda: "lock timeout" in log())
        await until(lambda: "runs are recorded again; the records of 0 are lost" in log())
    assert {run.id for run in rows(place)} >= {run.run_id for run in during}


@pytest.mark.parametrize("source", ["file", "env", "url"])
def test_the_password_comes_from_a_file_a_variable_or_the_url_and_is_never_shown(
    own_place: Path, own_server: PostgresServer, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("RECORDS_PASSWORD", PASSWORD)
    name = URLS[own_place].partition("praxis@/")[2].partition("?")[0]
    user = f"guarded:{PASSWORD}" if source == "url" else "guarded"
    url = f"postgresql://{user}@127.0.0.1:{own_server.port}/{name}"
    password = {"file": {"file": tmp_path / "password"}, "env": {"env": "RECORDS_PASSWORD"}, "url": None}[source]
    settings = RecordSettings.model_validate({"directory": own_place, "url": url, "password": password})
    open_database(settings).close()
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in settings.model_dump_json()
    wrong = RecordSettings.model_validate({"directory": own_place, "url": url.replace("7@", "8@"), "password": None})
    with pytest.raises(RecordsUnavailable) as failure:
        open_database(wrong)
    assert "horse" not in str(failure.value)
    assert "127.0.0.1" in str(failure.value)


@pytest.mark.parametrize("url", [f"postgresql://ada:{PASSWORD}@[::1/x", f"postgresql://ada:{PASSWORD}@h/x?nonsense=1"])
def test_a_url_that_cannot_be_read_is_said_to_be_so_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(RecordsUnavailable, match="not the URL of a PostgreSQL database") as failure:
        open_database(RecordSettings.model_validate({"directory": tmp_path, "url": url}))
    assert "horse" not in str(failure.value)
    assert failure.value.__suppress_context__


def test_a_url_of_another_database_is_refused_in_the_settings() -> None:
    with pytest.raises(SettingsError, match="postgresql://USER@HOST/NAME") as failure:
        load_settings(flags={"records": {"url": f"mysql://ada:{PASSWORD}@h/x"}})
    assert "horse" not in str(failure.value)


def test_without_the_driver_a_server_says_how_to_install_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="psycopg") as failure:
        RecordStore(place, settings_of(place)).prepare()
    assert "psycopg[binary]" in (failure.value.remedy or "")


def test_a_certificate_is_checked_where_the_database_is_on_another_machine_unless_the_url_says_otherwise(
    own_place: Path, own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing here is on another machine: what counts is the name, and libpq goes by `hostaddr`.
    name = URLS[own_place].partition("praxis@/")[2].partition("?")[0]
    away = f"postgresql://praxis@records.invalid:{own_server.port}/{name}?hostaddr=127.0.0.1"
    here = f"postgresql://praxis@127.0.0.1:{own_server.port}/{name}"
    authority = f"sslrootcert={own_server.place}/own.crt"
    for url, works in (
        (away, False),
        (f"{away}&{authority}", False),  # a certificate for another name
        (f"{away}&sslmode=verify-ca&{authority}", True),
        (f"{away}&sslmode=disable", True),
        (f"{here}?sslmode=verify-full&{authority}", True),
        (here, True),
    ):
        settings = RecordSettings.model_validate({"directory": own_place, "url": url})
        if works:
            database = open_database(settings)
            database.write([row("run", 1.0)], [("run", "stdout", os.urandom(3_000_000))])  # more than a socket takes
            database.close()
        else:
            with pytest.raises(RecordsUnavailable, match="certificate") as failure:
                open_database(settings)
            assert "sslrootcert" in (failure.value.remedy or "")


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("postgresql://ada@/x", True),
        ("postgresql://ada@localhost,127.0.0.1/x", True),
        ("postgresql://ada@%2Frun%2Fpostgresql/x", True),
        ("postgresql://ada@localhost/x?hostaddr=198.51.100.7", False),
        ("postgresql://ada@db.example/x?hostaddr=127.0.0.1", False),
        ("postgresql://ada@/x?hostaddr=198.51.100.7", False),
        ("postgresql://ada@localhost,db.example/x", False),
    ],
)
def test_a_database_is_on_another_machine_where_its_name_or_its_address_is(url: str, is_here: bool) -> None:
    assert postgres.connection_parameters(url).get("sslmode") == (None if is_here else "verify-full")


def test_of_several_hosts_the_one_that_takes_writes_is_used_also_after_they_have_changed_places(
    own_place: Path, own_server: PostgresServer
) -> None:
    name = URLS[own_place].partition("praxis@/")[2].partition("?")[0]
    other = shared_server()
    other.sql(f"CREATE DATABASE {name}_twin")
    own_server.sql(f"CREATE DATABASE {name}_twin")
    hosts = f"{own_server.place},{other.place}"
    url = f"postgresql://praxis@/{name}_twin?host={hosts}&port={own_server.port},{other.port}"
    settings = RecordSettings.model_validate({"directory": own_place, "url": url})
    for number, (reads, writes) in enumerate([(own_server, other), (other, own_server)]):
        reads.sql(f"ALTER DATABASE {name}_twin SET default_transaction_read_only = on")
        writes.sql(f"ALTER DATABASE {name}_twin RESET default_transaction_read_only")
        database = open_database(settings)
        database.write([row(f"run{number}", 1.0)])
        database.close()
        assert writes.sql("SELECT id FROM praxis_mcp.runs", writes.url(f"{name}_twin")) == [(f"run{number}",)]


def test_one_that_can_only_be_read_is_said_to_be_so(place: Path) -> None:
    database_in(place).close()
    name = URLS[place].partition("praxis@/")[2].partition("?")[0]
    shared_server().sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database = database_in(place)
    with pytest.raises(RecordsUnavailable, match="read-only") as failure:
        database.write([row("run", 1.0)])
    assert "standby" in (failure.value.remedy or "")
    assert list(database.select(Filters())) == [], "and reading works"
    database.close()


def test_what_a_role_is_given_as_defaults_changes_nothing(place: Path) -> None:
    server = shared_server()
    name = f"odd_{secrets.token_hex(4)}"
    server.sql(f"CREATE ROLE {name} SUPERUSER LOGIN")
    for setting, value in (
        ("search_path", "'elsewhere'"),
        ("default_transaction_isolation", "'serializable'"),
        ("extra_float_digits", "-15"),
        ("bytea_output", "'escape'"),
        ("idle_session_timeout", "'1h'"),
        ("statement_timeout", "'1h'"),
        ("datestyle", "'German'"),
        ("backslash_quote", "'off'"),
        ("client_encoding", "'LATIN1'"),
    ):
        server.sql(f"ALTER ROLE {name} SET {setting} = {value}")
    server.sql("CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.runs (id int)", URLS[place])
    URLS[place] = URLS[place].replace("praxis@", f"{name}@")
    one, other = database_in(place), database_in(place)
    runs = [
        row(f"run{number}", 1764322961.1 + number * 1e-6, ended=1764322962.0, stdout=b"\0\xff\\") for number in range(9)
    ]
    one.write(runs)
    assert [run.started for run in other.select(Filters())] == [run.started for run in reversed(runs)]
    found = other.find("run3")
    assert found is not None
    assert found.stdout == b"\0\xff\\"
    one.write([row("open", 1.0)])
    assert [run.id for run in other.close_runs_of("gone", 2.0)] == ["open"]
    for name, value in (
        ("transaction_isolation", "read committed"),
        ("statement_timeout", "10s"),
        ("idle_session_timeout", "0"),
        ("jit", "off"),
    ):
        assert other.read(f"SHOW {name}") == [(value,)]
    one.close()
    other.close()


def test_a_user_who_may_not_use_the_tables_of_another_learns_what_to_grant_and_then_may(place: Path) -> None:
    database_in(place).close()
    server = shared_server()
    name = f"second_{secrets.token_hex(4)}"
    server.sql(f"CREATE ROLE {name} LOGIN")
    own = RecordSettings.model_validate({"directory": place, "url": URLS[place].replace("praxis@", f"{name}@")})
    with pytest.raises(RecordsUnavailable, match="permission denied") as failure:
        open_database(own)
    assert "GRANT USAGE ON SCHEMA praxis_mcp" in (failure.value.remedy or "")
    server.sql(f"GRANT USAGE ON SCHEMA praxis_mcp TO {name}", URLS[place])
    server.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA praxis_mcp TO {name}", URLS[place])
    database = open_database(own)
    database.write([row("run", 1.0)])
    database.keep_alive("s")
    database.close()
    assert [run.id for run in rows(place)] == ["run"]


def test_a_server_of_an_earlier_version_goes_on_while_a_later_one_changes_the_tables(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations("postgres")
    monkeypatch.setattr(postgres, "migrations", lambda dialect: known)
    earlier = database_in(place)
    earlier.write([row("before", 1.0)])
    earlier.write([row("ended", 1.0, ended=2.0)])  # prepared
    changes = [(number, [*texts]) for number, texts in known]
    changes.append((known[-1][0] + 1, ["ALTER TABLE runs ADD COLUMN later TEXT NOT NULL DEFAULT ''"]))
    monkeypatch.setattr(postgres, "migrations", lambda dialect: changes)
    database_in(place).close()
    earlier.keep_alive("s")
    earlier.write([row("before", 1.0, ended=2.0)])
    earlier.write([row("after", 1.0), row("another", 1.0)], [("after", "stdout", b"x")])
    assert {run.id for run in earlier.select(Filters())} == {"before", "ended", "after", "another"}
    earlier.close()


def test_a_database_that_cannot_hold_every_text_is_refused(tmp_path: Path) -> None:
    server = shared_server()
    server.sql("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        with pytest.raises(RecordsUnavailable, match="encoding LATIN1"):
            open_database(RecordSettings.model_validate({"directory": tmp_path, "url": server.url("latin")}))
    finally:
        server.sql("DROP DATABASE latin")


def test_a_database_of_a_later_version_is_left_as_it_is(place: Path) -> None:
    place.mkdir()
    database_in(place).close()
    shared_server().sql("INSERT INTO praxis_mcp.migrations VALUES (9999)", URLS[place])
    with pytest.raises(RecordsUnavailable, match="later version"):
        database_in(place)


def test_a_user_who_may_make_no_schema_learns_what_to_grant_and_one_that_was_made_for_them_is_used(
    place: Path,
) -> None:
    server = shared_server()
    name = f"plain_{os.getpid()}"
    server.sql(f"CREATE ROLE {name} LOGIN")
    settings = settings_of(place).model_validate(
        {"directory": place, "url": URLS[place].replace("praxis@", f"{name}@")},
    )
    with pytest.raises(RecordsUnavailable, match="permission denied") as failure:
        open_database(settings)
    assert "GRANT CREATE" in (failure.value.remedy or "")
    server.sql(f"CREATE SCHEMA praxis_mcp AUTHORIZATION {name}", URLS[place])
    open_database(settings).close()


def test_many_processes_make_the_tables_at_once(place: Path) -> None:
    write_by_processes_at_once(place)


async def test_runs_of_a_server_on_another_machine_are_lost_once_it_has_been_silent_for_long_enough(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another directory is as another machine: there is no lock to look at."""
    place.mkdir()
    database = database_in(place)
    database.write([row("living", 1.0, server="s1"), row("dead", 1.0, server="s2"), row("unknown", 1.0, server="s3")])

    def outcomes() -> dict[str, str]:
        return {run.id: run.outcome for run in database.select(Filters())}

    for server, sign in (("s1", "+"), ("s2", "-")):
        database.keep_alive(server)
        monkeypatch.setattr(database, "_alive_at", float("-inf"))
        sql = f"UPDATE praxis_mcp.servers SET seen = seen {sign} interval '1 hour' WHERE id = '{server}'"
        shared_server().sql(sql, URLS[place])
    monkeypatch.setattr("praxis_mcp.execution.records.postgres.SILENCE", 1e8)
    close_lost_runs(database, place)
    assert set(outcomes().values()) == {"running"}, "the database was started less than that ago"
    monkeypatch.setattr("praxis_mcp.execution.records.postgres.SILENCE", 0.0)
    close_lost_runs(database, place)
    database.close()
    assert {run.id: run.outcome for run in rows(place)} == {"living": "running", "dead": "lost", "unknown": "lost"}


async def test_a_lock_that_machines_do_not_share_says_nothing_about_a_server_on_another(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a directory on a network whose locks each machine has for itself: nobody seems to hold the file."""
    (place / "servers").mkdir(parents=True)
    database = database_in(place)
    for server, machine in (("living", "elsewhere"), ("dead", socket.gethostname())):
        (place / "servers" / server).write_text(machine)
        database.write([row(server, 1.0, server=server)])
        monkeypatch.setattr(database, "_alive_at", float("-inf"))
        database.keep_alive(server)
    shared_server().sql("UPDATE praxis_mcp.servers SET seen = seen + interval '1 hour'", URLS[place])
    monkeypatch.setattr("praxis_mcp.execution.records.postgres.SILENCE", 0.0)
    close_lost_runs(database, place)
    database.close()
    assert {run.id: run.outcome for run in rows(place)} == {"living": "running", "dead": "lost"}
    assert [path.name for path in (place / "servers").iterdir()] == ["living"]


@pytest.mark.parametrize(
    ("signs", "is_silent"),
    [
        ({"judged": (1, 600)}, False),
        ({"judged": (120, 600)}, False),  # there is nobody else: it may be that no sign could arrive
        ({"judged": (120, 600), "other": (1, 5)}, False),  # the other one is just back, too
        ({"judged": (120, 600), "other": (1, 300)}, True),
        ({"judged": (120, 600), "other": (50, 300)}, False),
        ({"judged": (700, 900)}, True),
        ({"judged": (700, 900), "other": (1, 5)}, False),  # for an hour, say, or the clock was set
        ({"other": (1, 5)}, True),  # it has said that it ended
    ],
)
def test_a_server_counts_as_gone_only_where_its_signs_could_arrive(
    place: Path, signs: dict[str, tuple[int, int]], is_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the database, or the network to it, was gone for all of them, the first one back does not close the others'
    runs.

    Args:
        signs: of each server, how many seconds ago it was heard last, and since when without a gap.
    """
    database = database_in(place)
    for server, (seen, since) in signs.items():
        shared_server().sql(
            f"INSERT INTO praxis_mcp.servers VALUES ('{server}', now() - interval '{seen} s', "
            f"now() - interval '{since} s')",
            URLS[place],
        )
    monkeypatch.setattr(postgres, "_STARTED", "'-infinity'::timestamptz")
    assert database.is_silent("judged") is is_silent
    database.close()


def test_a_gap_in_its_signs_of_life_is_written_down(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = database_in(place)

    def since_minute() -> bool:
        ((found,),) = shared_server().sql(
            "SELECT without_gap_since < now() - interval '1 minute' FROM praxis_mcp.servers", URLS[place]
        )
        return bool(found)

    for ago, is_without in ((20, True), (40, False)):
        monkeypatch.setattr(database, "_alive_at", float("-inf"))
        database.keep_alive("s")
        shared_server().sql(
            f"UPDATE praxis_mcp.servers SET seen = now() - interval '{ago} s', "
            "without_gap_since = now() - interval '1 hour'",
            URLS[place],
        )
        monkeypatch.setattr(database, "_alive_at", float("-inf"))
        database.keep_alive("s")
        assert since_minute() is is_without
    database.close()


async def test_a_server_gives_signs_of_life_for_as_long_as_it_lives(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("praxis_mcp.execution.records.postgres.HEARTBEAT", 0.1)
    monkeypatch.setattr("praxis_mcp.execution.records.postgres.PostgresDatabase.heartbeat", 0.1)
    database_in(place).close()
    async with opened(place) as records:
        await record_run(records)

        def seen() -> list[tuple[object, ...]]:
            return shared_server().sql("SELECT id, seen FROM praxis_mcp.servers", URLS[place])

        await until(lambda: [server for server, _ in seen()] == [records.server])
        first = seen()
        await until(lambda: seen() > first)


async def test_the_trail_has_the_line_of_a_run_once_though_its_record_was_tried_more_than_once(
    own_place: Path, own_server: PostgresServer, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_LAST", 0.5)
    database_in(own_place).close()
    async with opened(own_place) as records:
        await record_run(records)
        await anyio.to_thread.run_sync(own_server.stop)
        try:
            run = await record_run(records)
            await until(lambda: run.run_id in [line["run"] for line in read(own_place)])
            await until(lambda: "runs are not recorded for now" in log())
        finally:
            await anyio.to_thread.run_sync(own_server.start)
        await until(lambda: "runs are recorded again" in log())
    assert [line["run"] for line in read(own_place)].count(run.run_id) == 1
    assert verify(own_place).problems == []


def test_files_that_are_removed_while_they_are_brought_are_brought_whole_or_not_at_all(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "long"
    long.write_bytes(os.urandom(3 * SHARED_PIECE + 7))
    empty = tmp_path / "empty"
    empty.touch()
    run = row("run", 1.0, ended=2.0, stdout=None, stderr=None)
    database, other = database_in(place), database_in(place)
    files = [RunFile("stdout", long, long.stat().st_size), RunFile("stderr", empty, 0)]
    database.write([run])
    share(database, run.id, files)
    bring(database, run, tmp_path / "whole")
    for file in files:
        assert (tmp_path / "whole" / run.id / file.name).read_bytes() == file.path.read_bytes()

    read, looks = database.read, iter(range(100))

    def read_and_remove(statement: str, values: Sequence[Any] = ()) -> list[Any]:
        if next(looks) == 3:
            other.remove([run.id])
        return read(statement, values)

    monkeypatch.setattr(database, "read", read_and_remove)
    bring(database, run, tmp_path / "none")
    assert next(looks) > 3
    assert list((tmp_path / "none").iterdir()) == []
    database.close()
    other.close()


def test_two_that_close_the_same_lost_runs_at_once_say_so_once(place: Path) -> None:
    place.mkdir()
    one, other = database_in(place), database_in(place)
    one.write([row("left", 1.0)])
    heard: list[str] = []
    with anyio.from_thread.start_blocking_portal() as portal:
        begun = portal.start_task_soon(lambda: None)
        begun.result()

        def slowly(_: list[StoredRun]) -> None:
            heard.append("one")
            second.append(portal.start_task_soon(anyio.to_thread.run_sync, lambda: other.close_runs_of("gone", 3.0)))

        second: list = []
        assert [run.id for run in one.close_runs_of("gone", 2.0, slowly)] == ["left"]
        assert second[0].result(timeout=30) == []
    one.close()
    other.close()
    assert heard == ["one"]


def test_bounds_hold_for_all_servers_together(place: Path) -> None:
    place.mkdir()
    database = database_in(place)
    database.write([row(f"run{number}", number, ended=number, server=f"s{number % 3}") for number in range(1, 1201)])
    removed = []
    while some := database.remove_beyond(Bounds(10**9, 100, 10**9), 2000.0):
        removed += some
    assert len(removed) == 1100
    assert [run.id for run in database.select(Filters(), 2)] == ["run1200", "run1199"]
    database.close()


async def test_a_server_that_ends_orderly_says_so_to_those_on_other_machines(place: Path) -> None:
    database_in(place).close()  # with its tables
    async with opened(place) as records:
        await record_run(records)
        await until(lambda: shared_server().sql("SELECT id FROM praxis_mcp.servers", URLS[place]))
    assert shared_server().sql("SELECT id FROM praxis_mcp.servers", URLS[place]) == []


async def test_a_run_that_is_left_while_its_files_are_shared_counts_as_ended(place: Path) -> None:
    """Else the place of each would be kept for ever, besides those of `records.keep`."""
    async with opened(place, keep=1) as records:
        for _ in range(4):
            plan = build_plan(ToolContract.create_local_tool("t", ["x"]), {}, Settings())
            record = await records.start(plan, "local")
            (file := await records.directory_of(record) / "stdout").write_bytes(b"x")
            result = ExecutionResult(plan.call.run_id, "local", "process", 0, stdout=Captured(b"x", total=1, file=file))
            with anyio.CancelScope() as scope:
                scope.cancel()
                await records.finish(record, result)
            assert scope.cancelled_caught
            assert not record.is_running
        assert len(records.entries()) == 2  # one that has ended, and the one that was just started
