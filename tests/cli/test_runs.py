"""``praxis-mcp runs``."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.execution.records.row import StoredRun
from tests.cli.test_terminal import read
from tests.kit import command_line
from tests.kit.contracts import write_tool
from tests.kit.records import database_in
from tests.kit.until import until_blocking

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    script = 'echo "Hello, $who"; echo "to stderr" >&2; echo kept > "$PRAXIS_OUTPUT_DIR/left.txt"; exit "$code"'
    parameters = {"who": "string", "code": {"type": "integer", "default": 0}}
    command = ["/bin/sh", "-c", script]
    write_tool(tmp_path / "tools", "greet", command, timeout=20, artifacts=["/out/*.txt"], parameters=parameters)
    # Says something, and waits until a file is there.
    command = ["/bin/sh", "-c", 'echo begun; until [ -e "$file" ]; do sleep 0.05; done; echo over']
    write_tool(tmp_path / "tools", "slow", command, timeout=120, parameters={"file": "string"})
    return tmp_path


@pytest.fixture
def environment(project: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(project / "state"), "PRAXIS_ENGINES__LOCAL__SANDBOX": "off"}


@pytest.fixture
def praxis(project: Path, environment: dict[str, str]) -> Run:
    def run(*words: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = command_line.praxis(*words, cwd=project, env={**environment, **variables})
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture
def database(project: Path) -> Path:
    place = project / "state" / "praxis-mcp" / "records"
    place.mkdir(parents=True)
    return place


def listed(praxis: Run, *words: str) -> list[dict[str, Any]]:
    return json.loads(praxis("runs", "list", "--json", *words).stdout)


def test_what_was_called_is_listed_and_shown_with_what_it_wrote_and_left(praxis: Run, project: Path) -> None:
    praxis("call", "greet", "who=Ada")
    praxis("call", "greet", "who=Bob", "code=3", code=3)
    newest, oldest = listed(praxis)
    assert (newest["outcome"], newest["exit_code"], oldest["outcome"]) == ("failed", 3, "ok")
    text = praxis("runs", "list").stdout
    assert "failed 3" in text
    assert oldest["run_id"][:12] in text
    assert f"run_id:          {newest['run_id']}" in praxis("runs", "show", "last").stdout
    logs = praxis("runs", "logs", oldest["run_id"][:12])
    assert (logs.stdout, logs.stderr) == ("Hello, Ada\n", "to stderr\n")
    assert praxis("runs", "logs", "last", "--stream", "stderr").stdout == ""
    assert "left.txt" in praxis("runs", "artifacts", "last").stdout
    praxis("runs", "artifacts", "last", "--to", str(project / "got"))
    assert (project / "got" / "left.txt").read_text() == "kept\n"


def test_runs_are_found_by_tool_outcome_and_time_and_exported_one_a_line(praxis: Run, database: Path) -> None:
    made = database_in(database)
    made.write([row(f"a{number}", "one", number) for number in range(3)])
    made.write([row("b1", "two", 2, outcome="failed", caller="ci")])
    made.close()
    assert [run["run_id"] for run in listed(praxis, "--of", "one", "--limit", "2")] == ["a2", "a1"]
    assert [run["run_id"] for run in listed(praxis, "--outcome", "failed")] == ["b1"]
    assert [run["run_id"] for run in listed(praxis, "--caller", "ci")] == ["b1"]
    since = ("--since", "1970-01-01T00:00:01+00:00", "--until", "1970-01-01T00:00:02+00:00")
    assert [run["run_id"] for run in listed(praxis, *since)] == ["a1"]
    assert listed(praxis, "--since", "1h") == []
    lines = praxis("runs", "export", "--of", "one").stdout.splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == ["a2", "a1", "a0"]
    assert "a1, " in praxis("runs", "show", "a", code=2).stderr, "which ones begin so"


def row(run_id: str, tool: str, began: float, **fields: Any) -> StoredRun:
    known = {"server": "gone", "engine": "local", "caller": "", "client": "", "root": "", "outcome": "ok"}
    return StoredRun(
        id=run_id, tool=tool, started=began, contract="", contract_sha256="", **{"ended": began, **known, **fields}
    )


def test_removing_takes_what_was_named_or_described_with_its_files_and_nothing_else(praxis: Run, project: Path) -> None:
    for who in ("Ada", "Bob"):
        praxis("call", "greet", f"who={who}")
    files = project / "state" / "praxis-mcp" / "records" / "files"
    assert len(list(files.iterdir())) == 2
    first = listed(praxis)[1]["run_id"]
    assert praxis("runs", "rm", first).stdout == "1 run removed\n"
    assert [path.name for path in files.iterdir()] == [listed(praxis)[0]["run_id"]]
    assert "Write which runs" in praxis("runs", "rm", code=2).stderr
    assert json.loads(praxis("runs", "rm", "--of", "slow", "--json").stdout) == {"removed": 0}
    assert praxis("runs", "rm", "--all").stdout == "1 run removed\n"
    assert list(files.iterdir()) == []
    assert "No run is recorded in " in praxis("runs", "list").stderr
    assert "No such run" in praxis("runs", "list", "--of", "greet").stderr


def test_a_named_run_that_goes_on_is_not_removed_and_that_is_said(praxis: Run, database: Path) -> None:
    made = database_in(database)
    made.write([row("a1", "greet", 1.0), row("b1", "greet", 2.0, ended=None, outcome="running", server="elsewhere")])
    with server_that_lives(database, "elsewhere"):
        done = praxis("runs", "rm", "a1", "b1", code=1)
        assert (done.stdout, done.stderr) == (
            "1 run removed\n",
            "1 run still running: only what has ended can be removed\n",
        )
        assert [run["run_id"] for run in listed(praxis)] == ["b1"]
        assert praxis("runs", "rm", "--all").stdout == "0 runs removed\n"
    made.close()


@contextmanager
def server_that_lives(place: Path, server: str) -> Iterator[None]:
    """As another process holds its file."""
    (place / "servers").mkdir()
    with (place / "servers" / server).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def test_where_nothing_is_recorded_lists_are_empty_and_a_run_is_not_found(praxis: Run, project: Path) -> None:
    praxis("call", "greet", "who=Ada", PRAXIS_RECORDS__ENABLED="false")
    assert listed(praxis) == []
    store = project / "state" / "praxis-mcp" / "records"
    for words, code in ((("list",), 0), (("show", "last"), 2)):
        assert f"No run is recorded in {store}." in praxis("runs", *words, code=code).stderr
    assert not (project / "state").exists()


def test_an_outcome_that_does_not_exist_is_refused_with_those_that_do(praxis: Run) -> None:
    assert "out_of_memory" in praxis("runs", "list", "--outcome", "timeout", code=2).stderr


def test_a_directory_that_cannot_be_made_is_refused_before_a_call_and_for_a_run_that_was(
    praxis: Run, project: Path
) -> None:
    (project / "file").touch()
    praxis("call", "greet", "who=Ada")
    for words in (("call", "greet", "who=Ada", "--artifacts"), ("runs", "artifacts", "last", "--to")):
        done = praxis(*words, str(project / "file" / "out"), code=2)
        assert done.stderr.splitlines() == [
            f"error: The directory {project}/file/out cannot be made: Not a directory.",
            f"  → Name another after {words[-1]}.",
        ]
    assert len(listed(praxis)) == 1


def test_a_call_that_cannot_be_recorded_is_answered_with_a_warning(praxis: Run, project: Path, database: Path) -> None:
    (database / "runs.db").write_bytes(b"not a database, and longer than a header of one is" * 4)
    done = praxis("call", "greet", "who=Ada")
    assert done.stdout == "Hello, Ada\n"
    assert "warning: runs are not recorded for now: " in done.stderr
    assert "warning: the records of 1 run could not be written" in done.stderr


def test_a_run_without_artifacts_says_that_it_left_none(praxis: Run, database: Path) -> None:
    made = database_in(database)
    made.write([row("a1", "one", 1)])
    made.close()
    shown = praxis("runs", "artifacts", "last")
    assert (shown.stdout, shown.stderr) == ("", "The run left no files as results.\n")


def test_a_run_is_shown_in_words_a_line_for_each_part(praxis: Run, database: Path) -> None:
    made = database_in(database)
    why = '[["dagger", "no CLI"], ["docker", "no daemon"]]'
    left = '[{"name": "a.txt", "size": 1}]'
    phases = '{"plan": 0.0001, "start": 0.0074, "run": 0.012}'
    made.write([row("a1", "one", 1, why=why, artifacts=left, changed_files='["b", "c"]', phases=phases)])
    made.close()
    shown = [" ".join(line.split()) for line in praxis("runs", "show", "a1").stdout.splitlines()]
    assert "phases: start 7 ms, run 12 ms" in shown
    assert shown[shown.index("passed_over: dagger: no CLI") + 1] == "docker: no daemon"
    assert "artifacts: a.txt, 1 byte" in shown
    assert shown[shown.index("changed_files: b") + 1] == "c"


def test_a_run_says_why_its_engine_was_chosen_and_where_its_files_are(praxis: Run, project: Path) -> None:
    praxis("call", "greet", "who=Ada")
    (shown,) = listed(praxis)
    assert shown["choice"] == "local: the first that can run it"
    assert shown["kept_at"].endswith(f":{project / 'state' / 'praxis-mcp' / 'records'}")
    assert "choice:          local: the first that can run it" in praxis("runs", "show", "last").stdout


def test_files_of_a_run_of_another_machine_are_said_to_be_there(praxis: Run, database: Path) -> None:
    made = database_in(database)
    left = '[{"name": "a.txt", "size": 1}]'
    made.write([row("a1", "one", 1, artifacts=left, kept_at="elsewhere:/srv/records", stdout_bytes=70_000)])
    made.close()
    assert "1 file kept at elsewhere:/srv/records" in praxis("runs", "artifacts", "a1").stderr
    assert "longer output is kept at elsewhere:/srv/records" in praxis("runs", "logs", "a1").stderr


def test_a_damaged_record_is_named_as_such_and_keeps_nothing_else_from_being_shown(praxis: Run, database: Path) -> None:
    made = database_in(database)
    made.write([row("a1", "one", 1, phases="not JSON", artifacts='["x"]'), row("b2", "two", 2)])
    made.close()
    intact, damaged = listed(praxis)
    assert (intact["run_id"], damaged["run_id"], damaged["damaged"]) == ("b2", "a1", ["phases", "artifacts"])
    assert "damaged:         phases\n                 artifacts" in praxis("runs", "show", "a1").stdout
    for words in (("artifacts", "a1"), ("list",), ("export",), ("rm", "a1")):
        praxis("runs", *words)
    assert [run["run_id"] for run in listed(praxis)] == ["b2"]


def test_text_of_a_client_steers_no_terminal_and_forges_no_line(praxis: Run, database: Path) -> None:
    made = database_in(database)
    made.write([row("a1", "one", 1, client="evil\x1b[2J\nrun_id: forged")])
    made.close()
    for words in (("list",), ("show", "a1"), ("export",), ("list", "--json")):
        text = praxis("runs", *words).stdout
        assert "\x1b" not in text
        assert not any(line.startswith("run_id: forged") for line in text.splitlines())


def test_the_name_of_an_artifact_forges_no_other_artifact(praxis: Run, project: Path) -> None:
    script = 'echo x > "$PRAXIS_OUTPUT_DIR/$1"'
    name = "a\n           9  b.txt"
    write_tool(project / "tools", "leave", ["/bin/sh", "-c", script, "sh", name], artifacts=["/out/*"])
    praxis("call", "leave")
    (line,) = praxis("runs", "artifacts", "last").stdout.splitlines()
    assert line == f"{2:>12}  a\\n           9  b.txt"
    assert [line for line in praxis("runs", "show", "last").stdout.splitlines() if "b.txt" in line] == [
        "artifacts:       a\\n           9  b.txt, 2 bytes"
    ]


def test_a_run_that_goes_on_can_be_followed_from_elsewhere_until_it_ends(
    praxis: Run, project: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "praxis_mcp"]
    common: dict[str, Any] = {"cwd": project, "env": environment, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, "call", "slow", f"file={project / 'go'}"], **common) as called:
        try:
            until_blocking(lambda: [run["outcome"] for run in listed(praxis)] == ["running"])
            with subprocess.Popen([*command, "runs", "logs", "-f", "last"], **common) as following:
                try:
                    assert following.stdout is not None
                    assert following.stdout.readline() == b"begun\n"
                    (project / "go").touch()
                    assert following.stdout.read() == b"over\n", "each piece once, though it is kept twice for a moment"
                    assert following.wait(timeout=60) == 0
                finally:
                    following.kill()
            assert called.wait(timeout=60) == 0
        finally:
            called.kill()
    assert [run["outcome"] for run in listed(praxis)] == ["ok"]


def test_a_run_whose_process_was_killed_is_lost_and_what_it_had_written_can_be_read(
    praxis: Run, project: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "praxis_mcp", "call", "slow", f"file={project / 'go'}"]
    with subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.DEVNULL) as called:
        try:
            until_blocking(lambda: listed(praxis) and praxis("runs", "logs", "last").stdout == "begun\n")
        finally:
            called.kill()
    (run,) = listed(praxis)
    assert run["outcome"] == "lost"
    assert run["ended"] is not None
    assert praxis("runs", "logs", "-f", "last").stdout == "begun\n"
    (project / "go").touch()


def test_a_character_that_came_in_two_pieces_is_one_on_a_terminal(
    project: Path, environment: dict[str, str], database: Path
) -> None:
    made = database_in(database)
    made.write([row("left", "one", 1, ended=None, outcome="running")])
    euro = "€".encode()
    made.write([], [("left", "stdout", b"1 " + euro[:2]), ("left", "stdout", euro[2:] + b" \x1b[2J\n")])
    made.close()
    controller, terminal = os.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "praxis_mcp", "runs", "logs", "left"],
            cwd=project,
            env={**environment, "PYTHONIOENCODING": "utf-8"},
            stdout=terminal,
        ) as shown:
            os.close(terminal)
            assert b"".join(read(controller)).decode() == "1 € \\x1b[2J\r\n"
            assert shown.wait(60) == 0
    finally:
        os.close(controller)
