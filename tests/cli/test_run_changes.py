"""``praxis-mcp runs diff``."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from praxis_mcp.engines.file_states import FileChange, FileState
from praxis_mcp.execution.records import changes
from praxis_mcp.execution.records.changes import changes_of, pack_changes
from tests.cli.test_runs import row
from tests.cli.test_terminal import read
from tests.kit import command_line
from tests.kit.contracts import write_tool
from tests.kit.records import database_in


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "PRAXIS_ENGINES__LOCAL__SANDBOX": "own"}


def praxis(tmp_path: Path, environment: dict[str, str], *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = command_line.praxis(*words, cwd=tmp_path, env=environment)
    assert done.returncode == code, done.stderr
    return done


def write_editor(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    (work / "edited").write_text("one\ntwo\nthree\n")
    (work / "gone").write_text("last")
    (work / "mode").write_text("x")
    (work / "mode").chmod(0o644)
    (work / "bytes").write_bytes(b"\0")
    source = (
        "import os, pathlib\n"
        "pathlib.Path('edited').write_text('one\\n\\x1b[31mTWO\\nthree\\n')\n"
        "os.remove('gone'); os.chmod('mode', 0o600)\n"
        "pathlib.Path('bytes').write_bytes(bytes(2))\n"
        "pathlib.Path('new\\nname').write_text('made\\n')\n"
    )
    write_tool(tmp_path / "tools", "edit", ["python3", "-c", source], cwd=str(work), mounts={str(work): f"{work}:rw"})
    return work


@pytest.mark.sandbox
def test_what_a_run_changed_is_shown_as_a_difference_that_patch_reads(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    work = write_editor(tmp_path)
    praxis(tmp_path, environment, "call", "edit")
    shown = praxis(tmp_path, environment, "runs", "diff", "last").stdout
    assert f"{work}/mode: changed, mode 0644 to 0600\n" in shown
    assert f"{work}/bytes: changed, file of 1 byte (binary), SHA-256 6e340b9c" in shown
    assert f"{work}/gone: removed\n--- {work}/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-last\n\\ No newline at" in shown
    assert f"{work}/new\\nname: created\n--- /dev/null\n+++ {work}/new\\nname\n@@ -0,0 +1 @@\n+made\n" in shown
    assert " one\n-two\n+\x1b[31mTWO\n three\n" in shown, "as it is, for patch"
    listed = json.loads(praxis(tmp_path, environment, "runs", "diff", "last", "--json").stdout)
    found = {item["path"]: item for item in listed}
    assert {name.rpartition("/")[2]: item["change"] for name, item in found.items()} == {
        "edited": "changed",
        "gone": "removed",
        "mode": "mode",
        "bytes": "changed",
        "new\nname": "created",
    }
    edited = found[f"{work}/edited"]
    assert (edited["before"]["text"], edited["before"]["size"]) == ("one\ntwo\nthree\n", 14)
    assert edited["diff"].splitlines()[2] == "@@ -1,3 +1,3 @@"
    assert found[f"{work}/gone"]["after"] is None
    (database,) = (tmp_path / "state").rglob("runs.db")
    assert database.stat().st_mode & 0o777 == 0o600


@pytest.mark.sandbox
def test_on_a_terminal_what_would_steer_it_is_shown_by_number(tmp_path: Path, environment: dict[str, str]) -> None:
    write_editor(tmp_path)
    praxis(tmp_path, environment, "call", "edit")
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "praxis_mcp", "runs", "diff", "last"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=terminal) as process:
        os.close(terminal)
        shown = b"".join(read(controller)).decode()
        os.close(controller)
        assert process.wait(60) == 0
    assert "+\\x1b[31mTWO" in shown
    assert "\x1b[31mTWO" not in shown


@pytest.mark.sandbox
def test_what_is_kept_is_what_the_settings_say(tmp_path: Path, environment: dict[str, str]) -> None:
    work = write_editor(tmp_path)
    praxis(tmp_path, {**environment, "PRAXIS_RECORDS__CHANGES": "none"}, "call", "edit")
    shown = praxis(tmp_path, environment, "runs", "diff", "last").stdout
    assert f"{work}/edited: changed; only its path is kept\n" in shown
    assert "TWO" not in shown
    (work / "edited").write_text("other")
    praxis(tmp_path, {**environment, "PRAXIS_RECORDS__CHANGES": "hashes"}, "call", "edit", code=1)
    shown = praxis(tmp_path, environment, "runs", "diff", "last").stdout
    assert f"{work}/edited: changed, file of 5 bytes (not asked for), SHA-256 " in shown
    assert "TWO" not in shown


def test_a_run_that_changed_nothing_and_one_whose_changes_are_damaged_say_so(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    place = tmp_path / "state" / "praxis-mcp" / "records"
    place.mkdir(parents=True)
    made = database_in(place)
    state = FileState("file", 1, 0o644, "x")
    kept = pack_changes([FileChange(Path("/a"), None, state)])
    made.write([row("a1", "one", 1), row("b2", "one", 2, changes=b"\0not packed", changed_files='["/a"]')])
    made.write([row("c3", "one", 3, changes=kept, changed_files='["/a"]')])
    made.close()
    assert "changed no files" in praxis(tmp_path, environment, "runs", "diff", "a1").stderr
    assert "is damaged" in praxis(tmp_path, environment, "runs", "diff", "b2", code=2).stderr
    assert "+x" in praxis(tmp_path, environment, "runs", "diff", "c3").stdout


def test_what_the_names_of_files_would_make_too_large_to_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_CHANGES_BYTES", 1000)
    state = FileState("file", 1, 0o644, "x")
    paths = [f"/{number}/{'n' * 300}" for number in range(5)]
    packed = pack_changes([FileChange(Path(path), None, state) for path in paths])
    run = row("a1", "one", 1, changes=packed, changed_files=json.dumps(paths))
    assert [(item.path, item.is_described) for item in changes_of(run)] == [
        (path, number < 2) for number, path in enumerate(paths)
    ]


def test_files_of_one_name_are_all_shown_where_a_secret_was_masked_in_it() -> None:
    states = [FileState("file", 1, 0o644, text) for text in "xy"]
    packed = pack_changes([FileChange(Path("/***"), None, state) for state in states])
    found = changes_of(row("a1", "one", 1, changes=packed, changed_files='["/***", "/***", "/b"]'))
    assert [(item.path, item.after and item.after.text) for item in found] == [
        ("/***", "x"),
        ("/***", "y"),
        ("/b", None),
    ]


def test_a_text_that_no_encoding_can_write_is_shown_all_the_same(tmp_path: Path, environment: dict[str, str]) -> None:
    """Somebody has changed the database."""
    place = tmp_path / "state" / "praxis-mcp" / "records"
    place.mkdir(parents=True)
    made = database_in(place)
    kept = pack_changes([FileChange(Path("/a"), None, FileState("file", 1, 0o644, "\ud800"))])
    made.write([row("a1", "one", 1, changes=kept, changed_files='["/a"]')])
    made.close()
    assert "+\\ud800\n" in praxis(tmp_path, environment, "runs", "diff", "a1").stdout


def test_what_is_kept_of_changes_counts_as_bytes_of_its_run(tmp_path: Path) -> None:
    with_changes = row("a1", "one", 1, changes=bytes(5000))
    assert with_changes.weight - row("a1", "one", 1).weight == 5000
