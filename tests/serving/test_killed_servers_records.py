"""Servers that are killed in the middle of many calls, and what is then recorded of them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from praxis_mcp.execution.records.audit import AuditTrail, read, verify
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.records.sqlite import SqliteDatabase
from praxis_mcp.execution.records.store import DATABASE, close_lost_runs
from tests.kit.contracts import write_tool
from tests.kit.postgres import shared_server
from tests.kit.records import DATABASES, URLS, database_in, records_place, variables_of
from tests.kit.until import until_blocking
from tests.serving.clients import server_command, server_environment

KILLS = int(os.environ.get("PRAXIS_TEST_KILLS", "5"))
"""How many servers are killed."""
PATIENT = """
from praxis_mcp.cli import main
from praxis_mcp.execution.records import writer

writer.WRITTEN_WITHIN = writer.FIRST_WITHIN = 60.0
main()
"""
"""A server whose answers wait for their records as long as a busy machine takes to write them."""
AT_ONCE = 8
MOST_ANSWERS = 60
"""Answers after which a server is killed at the latest."""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    command = ["/bin/sh", "-c", 'printf "%s\\n" "$word"']
    return write_tool(tmp_path / "tools", "echo", command, timeout=60, parameters={"word": "string"}).parent


@pytest.fixture(params=DATABASES)
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    with records_place(tmp_path, request.param) as place:
        yield place


@pytest.mark.timeout(60 + 30 * KILLS)
def test_no_answered_call_lacks_its_record_and_none_is_half_written_however_often_servers_are_killed(
    tools: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(4)
    answered: set[str] = set()
    called: set[str] = set()
    for number in range(KILLS):
        for word in kill_among_calls(tools, place, f"server{number}", chance.randrange(1, MOST_ANSWERS), called):
            answered.add(word)
    assert len(answered) >= KILLS
    # Each server was killed with so many calls under way, at most.
    assert len(called - answered) <= KILLS * AT_ONCE

    # What PostgreSQL had received from the last one is done before it notices that nobody is there.
    monkeypatch.setattr("praxis_mcp.execution.records.postgres.SILENCE", 0.0)
    until_blocking(lambda: connections(place) == 0, what="no server is connected")
    database = database_in(place, create=False)
    close_lost_runs(database, place, AuditTrail(place, 10**9))
    runs = list(all_runs(database))
    if isinstance(database, SqliteDatabase):
        # https://sqlite.org/pragma.html#pragma_integrity_check
        assert database.read("PRAGMA integrity_check") == [("ok",)]
        assert (place / DATABASE).stat().st_mode & 0o777 == 0o600
    else:
        assert not (place / DATABASE).exists()
    database.close()
    assert {run.outcome for run in runs} <= {"ok", "lost"}
    finished, lost = ([word_of(run) for run in runs if run.outcome == outcome] for outcome in ("ok", "lost"))
    print(f"{KILLS} kills: {len(answered)} answered, {len(finished)} finished, {len(lost)} lost")
    assert not answered - {*finished}, "a result that a client has got is recorded"
    assert {*lost} <= called - answered, "what is lost was under way when its server was killed"
    assert len({*finished, *lost}) == len(runs), "a call has one record"
    assert {*finished} <= called
    for run in runs:
        assert run.ended is not None
        assert run.started <= run.ended
        assert run.tool == "echo"
        assert len(run.contract_sha256) == 64
        if run.outcome == "ok":
            assert run.stdout is not None
            assert run.stdout.decode().strip() == word_of(run)
            assert len(run.stdout) == run.stdout_bytes
            assert json.loads(run.phases).keys() >= {"queue", "run"}
    trail = verify(place)
    assert trail.problems == []
    audited = {(line["run"], line["outcome"]) for line in read(place)}
    assert audited >= {(run.id, run.outcome) for run in runs}
    assert not list((place / "servers").iterdir()), "nothing of the killed ones is left but their records"


def all_runs(database: Any) -> Iterator[StoredRun]:
    for run in list(database.select(Filters())):
        found = database.find(run.id)
        assert found is not None
        yield found


def word_of(run: StoredRun) -> str:
    """Which call it was, by its arguments: one that is lost may have put out nothing."""
    return str(json.loads(run.arguments or "{}")["word"])


def connections(place: Path) -> int:
    """Those that servers have to the database of that place, as it sees them."""
    if place not in URLS:
        return 0
    ((count,),) = shared_server().sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'praxis-mcp'",
        URLS[place],
    )
    return int(str(count))


def kill_among_calls(tools: Path, place: Path, name: str, after: int, called: set[str]) -> Iterator[str]:
    """What the calls said that a server answered, which is killed after so many; as many as may run at once are under
    way then."""
    server = subprocess.Popen(
        [sys.executable, "-c", PATIENT, *server_command(str(tools))[3:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=server_environment(**variables_of(place), PRAXIS_LOG_LEVEL="ERROR", PRAXIS_RECORDS__ARGUMENTS="masked"),
        cwd=tools,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "killer", "version": "1"}}
        send(server.stdin, id="hello", method="initialize", params=about)
        assert json.loads(server.stdout.readline())["id"] == "hello"
        send(server.stdin, method="notifications/initialized")
        for number in range(AT_ONCE):
            called.add(call(server.stdin, f"{name}-{number}"))
        for number in range(AT_ONCE, AT_ONCE + after):
            yield answer(server.stdout.readline())
            called.add(call(server.stdin, f"{name}-{number}"))
        server.send_signal(signal.SIGKILL)
        # What it had answered, and nobody had read yet, counts as well.
        for line in server.stdout.read().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield answer(line)
    finally:
        server.kill()
        server.communicate(timeout=60)


def answer(line: bytes) -> str:
    result = json.loads(line)["result"]
    assert not result.get("isError"), result
    return str(result["content"][0]["text"]).strip()


def call(stdin: IO[bytes], word: str) -> str:
    send(stdin, id=word, method="tools/call", params={"name": "echo", "arguments": {"word": word}})
    return word


def send(stdin: IO[bytes], **message: Any) -> None:
    stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    stdin.flush()
