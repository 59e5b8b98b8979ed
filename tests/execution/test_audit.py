"""The audit trail: what it holds, and what is found in it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.errors import ArgumentError, RecordsUnavailable
from praxis_mcp.execution.records import audit
from praxis_mcp.execution.records.audit import AUDIT, AuditTrail, read, verify
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.execution.records.store import close_lost_runs
from tests.execution.test_record_store import row, toolbox_for
from tests.kit import command_line
from tests.kit.records import database_in
from tests.kit.until import until_blocking

ROOT = Path(__file__).resolve().parents[2]


def trail(directory: Path, **options: Any) -> AuditTrail:
    return AuditTrail(directory, **{"max_bytes": 10**9, **options})


def texts(directory: Path) -> list[bytes]:
    return (directory / AUDIT).read_bytes().splitlines(keepends=True)


@pytest.mark.anyio
async def test_each_call_is_a_line_with_who_called_what_and_how_it_ended_and_a_refused_one_too(tmp_path: Path) -> None:
    place = tmp_path / "records"
    tool = ToolContract.create_local_tool("t", ["/bin/true"], parameters=[{"name": "n", "type": "integer"}])
    async with toolbox_for(place) as toolbox:
        await toolbox.runner.run(tool, {"n": 1}, caller="ada")
        with pytest.raises(ArgumentError):
            await toolbox.runner.run(tool, {"n": "x"}, caller="bob")
        toolbox.runner.tally.refuse("secret_tool", "eve", "forbidden", "client 1")
    first, second, third = read(place)
    (run,) = toolbox.records.entries()
    assert (first["tool"], first["caller"], first["engine"], first["outcome"]) == ("t", "ada", "local", "ok")
    assert first["run"] == run.run_id
    assert first["ms"] > 0
    assert (second["caller"], second["outcome"], second["run"]) == ("bob", "bad_arguments", "")
    assert (third["tool"], third["caller"], third["client"]) == ("secret_tool", "eve", "client 1")
    assert (first["arguments"], second["arguments"]) == (None, None)
    assert (place / AUDIT).stat().st_mode & 0o777 == 0o600
    assert verify(place).is_whole


@pytest.mark.anyio
async def test_the_line_of_a_run_is_there_when_its_caller_has_the_answer(tmp_path: Path) -> None:
    async with toolbox_for(tmp_path / "records") as toolbox:
        for number in range(5):
            await toolbox.call(ToolContract.create_local_tool("t", ["/bin/true"]), {})
            assert len(list(read(tmp_path / "records"))) == number + 1


@pytest.mark.anyio
async def test_a_trail_that_cannot_be_written_costs_neither_answer_nor_record(tmp_path: Path) -> None:
    place = tmp_path / "records"
    (place / AUDIT).mkdir(parents=True)
    async with toolbox_for(place) as toolbox:
        for _ in range(3):
            assert (await toolbox.call(ToolContract.create_local_tool("t", ["/bin/true"]), {})).success
        (place / AUDIT).rmdir()
    database = database_in(place)
    assert len(list(database.select(Filters()))) == 3
    database.close()
    assert len(list(read(place))) == 3, "they were tried again at the end"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda lines: [*lines[:3], lines[3].replace(b'"ok"', b'"no"'), *lines[4:]], "changed or removed"),
        (lambda lines: [*lines[:3], *lines[4:]], "changed or removed"),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "changed or removed"),
        (lambda lines: [*lines[:3], lines[3], lines[3], *lines[4:]], "changed or removed"),
        (lambda lines: [*lines[:3], b"x" * 10 + b"\n", *lines[4:]], "changed or removed"),
        (lambda lines: lines[:3], "has been cut off"),
        (lambda lines: lines[4:], "removed by the bound, or by someone"),
        (lambda lines: [], "has been cut off"),
    ],
    ids=["changed", "removed", "swapped", "doubled", "garbled", "cut off", "beheaded", "emptied"],
)
def test_tampering_is_found(tmp_path: Path, change: Any, found: str) -> None:
    for number in range(8):
        trail(tmp_path).append([{"tool": f"t{number}", "outcome": "ok"}])
    whole = verify(tmp_path)
    assert (whole.lines, whole.last, whole.is_whole) == (8, 8, True)
    noted = (3, audit.digest(texts(tmp_path)[2].rstrip(b"\n"))) if found.startswith("removed") else (8, whole.head)
    (tmp_path / AUDIT).write_bytes(b"".join(change(texts(tmp_path))))
    assert found in verify(tmp_path, noted).problems[0]


def test_a_line_that_a_killed_process_left_half_written_is_found_and_the_trail_goes_on(tmp_path: Path) -> None:
    for cut in range(1, 60, 7):
        trail(tmp_path).append([{"tool": "before"}])
        with (tmp_path / AUDIT).open("ab") as out:
            out.write(b'{"seq": 99, "tool": "half", "prev": "0123456789abcdef0123456789"'[:cut])
        assert len(verify(tmp_path).torn) >= 1
        trail(tmp_path).append([{"tool": "after"}, {"tool": "more"}])
    found = verify(tmp_path)
    assert found.is_whole
    assert len(found.torn) == 9
    assert [line["seq"] for line in read(tmp_path)] == list(range(1, 28))


@pytest.mark.parametrize("size", [1, 3900, 4000, 4096, 5000, 32_600, 32_768, 40_000, 100_000])
def test_a_line_goes_on_from_the_last_one_however_long_that_is_and_what_a_killed_process_left_behind_it(
    tmp_path: Path, size: int
) -> None:
    for number in range(3):
        trail(tmp_path).append([{"tool": "x" * size}, {"tool": f"t{number}"}, {"tool": "y" * size}])
        with (tmp_path / AUDIT).open("ab") as out:
            out.write(b'{"seq": 4, "to' + b"z" * size + b"\n" + b"z" * (size // 2 + 1))
    trail(tmp_path).append([{"tool": "last"}])
    found = verify(tmp_path)
    assert (found.problems, found.lines, len(found.torn)) == ([], 10, 6)


def test_a_line_is_appended_to_a_long_trail_without_a_look_at_more_than_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail(tmp_path).append([{"tool": f"t{number}"} for number in range(5000)])
    assert (tmp_path / AUDIT).stat().st_size > 256 * 1024
    sizes: list[int] = []
    read_at = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: sizes.append(args[1]) or read_at(*args))
    trail(tmp_path).append([{"tool": "last"}])
    assert sum(sizes) < 8 * 1024
    assert verify(tmp_path).is_whole


def test_a_full_disk_leaves_no_piece_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail(tmp_path).append([{"tool": "before"}])
    before = texts(tmp_path)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) <= 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RecordsUnavailable, match="No space"):
        trail(tmp_path).append([{"tool": "lost"}])
    monkeypatch.undo()
    assert texts(tmp_path) == before
    trail(tmp_path).append([{"tool": "after"}])
    assert verify(tmp_path).is_whole


def test_files_are_rotated_chained_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_FILE", 2000)
    for number in range(120):
        trail(tmp_path, max_bytes=8000).append([{"tool": f"t{number}"}])
    found = verify(tmp_path)
    assert found.is_whole
    assert found.last == 120
    assert 1 < found.first < 120
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 11_000
    assert len(list(tmp_path.iterdir())) > 2
    sorted(tmp_path.glob("audit-*.jsonl"))[1].unlink()
    assert not verify(tmp_path).is_whole, "a file in the middle is missed"


def test_processes_that_append_at_once_and_are_killed_leave_a_trail_that_verifies(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom contextlib import suppress\nfrom pathlib import Path\n"
        "from praxis_mcp.errors import RecordsUnavailable\nfrom praxis_mcp.execution.records.audit import AuditTrail\n"
        "trail = AuditTrail(Path(sys.argv[1]), 10**9)\nprint('ready', flush=True)\n"
        "while True:\n"
        # Who never comes to the lock within its bound tries again, as the writer does.
        "    with suppress(RecordsUnavailable): trail.append([{'tool': 'x' * 500}] * 5)\n"
    )
    chance = random.Random(1)
    many = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(3)
    ]
    try:
        for each in many:
            assert each.stdout is not None
            assert each.stdout.readline() == b"ready\n"
        for each in many:
            wanted = len(list(read(tmp_path))) + chance.randrange(10, 100)
            until_blocking(lambda wanted=wanted: verify(tmp_path).last >= wanted)
            each.send_signal(signal.SIGKILL)
            each.wait(timeout=60)
    finally:
        for each in many:
            each.kill()
            each.communicate(timeout=60)
    trail(tmp_path).append([{"tool": "last"}])
    found = verify(tmp_path)
    assert found.problems == []
    assert found.lines == found.last


def test_a_run_that_is_lost_with_its_server_is_in_the_trail(tmp_path: Path) -> None:
    database = database_in(tmp_path)
    database.write([row("left", 1000.0, caller="ada")])
    close_lost_runs(database, tmp_path, trail(tmp_path))
    database.close()
    (line,) = read(tmp_path)
    assert (line["run"], line["caller"], line["outcome"]) == ("left", "ada", "lost")


def test_the_command_verifies_shows_and_fails_where_something_was_changed(tmp_path: Path) -> None:
    def praxis(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PRAXIS_RECORDS__DIRECTORY": str(tmp_path / "records")}
        return command_line.praxis("audit", *words, cwd=tmp_path, env=environment)

    (tmp_path / "records").mkdir()
    for words in (("show",), ("verify",)):
        assert f"no line of an audit trail in {tmp_path / 'records'}" in praxis(*words).stderr
    for number in range(3):
        line = {"tool": f"t{number}\x1b[2J", "client": "one caller=ada", "outcome": "ok", "time": "now"}
        trail(tmp_path / "records").append([line])
    done = praxis("verify")
    assert done.returncode == 0
    assert "3 lines, whole; 3:" in done.stdout
    noted = done.stdout.split("; ")[1].strip()
    assert praxis("verify", "--known", noted).returncode == 0
    shown = praxis("show", "--limit", "1").stdout
    assert "t2" in shown
    assert ' client="one caller=ada" ' in shown, "no name adds a field"
    assert "\x1b" not in shown
    assert json.loads(praxis("show", "--json", "--limit", "1").stdout)["seq"] == 3
    file = tmp_path / "records" / AUDIT
    file.write_text(file.read_text().replace("t1", "t7"))
    changed = praxis("verify", "--json")
    assert changed.returncode == 1
    assert json.loads(changed.stdout)["whole"] is False


def test_no_trail_is_kept_where_the_settings_say_so(tmp_path: Path) -> None:
    async def call() -> None:
        async with toolbox_for(tmp_path / "records", audit=False) as toolbox:
            await toolbox.call(ToolContract.create_local_tool("t", ["/bin/true"]), {})

    anyio.run(call)
    assert not (tmp_path / "records" / AUDIT).exists()


def test_a_piece_of_a_line_does_not_sever_what_was_before_it(tmp_path: Path) -> None:
    for number in range(3):
        trail(tmp_path).append([{"tool": f"t{number}"}])
    for piece in (b'{"seq": 4, "to', b'\n{"seq": 4, "tool'):
        with (tmp_path / AUDIT).open("ab") as out:
            out.write(piece)
    trail(tmp_path).append([{"tool": "t3"}, {"tool": "t4"}])
    whole = verify(tmp_path)
    assert (whole.is_whole, len(whole.torn), whole.last) == (True, 2, 5)
    before = texts(tmp_path)

    def rewritten() -> list[bytes]:
        other = tmp_path / "other"
        other.mkdir()
        trail(other).append([{"tool": name} for name in ("t0", "changed", "t2")])
        return [*texts(other), *before[3:]]

    changes = (rewritten(), [*before[:4], *before[5:]], [*before[:3], *before[5:]], [before[0], b"{\n", *before[1:]])
    for change in changes:
        (tmp_path / AUDIT).write_bytes(b"".join(change))
        assert not verify(tmp_path).is_whole


def test_a_piece_of_the_first_line_of_a_new_file_goes_on_from_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_FILE", 1)
    trail(tmp_path).append([{"tool": "t0"}])
    (tmp_path / AUDIT).write_bytes(b'{"seq": 2, "to')
    trail(tmp_path).append([{"tool": "t1"}])
    found = verify(tmp_path)
    assert (found.problems, found.last, len(found.torn)) == ([], 2, 1)
    (tmp_path / "audit-000000000001.jsonl").unlink()
    assert verify(tmp_path).problems == [], "what the bound has removed is no tampering"


def test_a_reader_sees_the_trail_as_it_was_at_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_FILE", 1500)
    for number in range(3):
        trail(tmp_path).append([{"tool": f"t{number}"}])
    lines = read(tmp_path)
    first = next(lines)
    for number in range(3, 30):  # across several files
        trail(tmp_path).append([{"tool": f"t{number}"}])
    assert [line["seq"] for line in (first, *lines)] == [1, 2, 3]


def test_a_trail_that_others_could_read_is_closed_to_them_and_only_a_file_is_written(tmp_path: Path) -> None:
    (tmp_path / AUDIT).touch(0o644)
    trail(tmp_path).append([{"tool": "t"}])
    assert (tmp_path / AUDIT).stat().st_mode & 0o777 == 0o600
    (tmp_path / AUDIT).unlink()
    os.mkfifo(tmp_path / AUDIT)
    with pytest.raises(RecordsUnavailable, match="not a regular file"):
        trail(tmp_path).append([{"tool": "t"}])


@pytest.mark.parametrize("name", [AUDIT, "audit-000000000000.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.timeout(20)
def test_a_pipe_or_a_link_in_place_of_a_file_of_the_trail_is_an_error_and_not_waited_for(
    tmp_path: Path, name: str, kind: str
) -> None:
    place = tmp_path / "records"
    place.mkdir()
    if kind == "pipe":
        os.mkfifo(place / name)
    else:
        (tmp_path / "own").touch()
        (place / name).symlink_to(tmp_path / "own")
    with pytest.raises(RecordsUnavailable, match="cannot be used"):
        trail(place).append([{"tool": "t"}])
    with pytest.raises(RecordsUnavailable, match="cannot be used"):
        verify(place)


def test_the_command_misses_the_newest_run_where_the_end_was_cut_off_or_all_was_removed(tmp_path: Path) -> None:
    place = tmp_path / "records"

    def verified() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PRAXIS_RECORDS__DIRECTORY": str(place)}
        return command_line.praxis("audit", "verify", cwd=tmp_path, env=environment)

    async def call() -> None:
        async with toolbox_for(place) as toolbox:
            for _ in range(3):
                await toolbox.call(ToolContract.create_local_tool("t", ["/bin/true"]), {})

    anyio.run(call)
    assert verified().returncode == 0
    (place / AUDIT).write_bytes(b"".join(texts(place)[:2]))
    assert "its end has been cut off" in verified().stderr
    (place / AUDIT).unlink()
    assert verified().returncode == 1


def test_the_name_of_a_client_adds_no_field_to_a_line_that_is_shown(tmp_path: Path) -> None:
    trail(tmp_path).append([{"tool": "t", "client": 'x" caller=admin\nouter', "outcome": "ok"}])
    environment = {**os.environ, "PRAXIS_RECORDS__DIRECTORY": str(tmp_path)}
    shown = command_line.praxis("audit", "show", cwd=tmp_path, env=environment).stdout
    assert shown.rstrip().endswith('tool=t client="x\\" caller=admin\\nouter" outcome=ok')
