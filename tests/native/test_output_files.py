"""`run --stdout FILE --stderr FILE`: what a command writes is kept in two files, whole, and its beginning is shown."""

import subprocess
from pathlib import Path

import pytest

from praxis_mcp.support.praxis_init import Ended, EndKind, parse_report
from tests.native.harness import PATIENCE, Outcome, PraxisInit, past_its_deadline

SHOWN = 256 * 1024


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "stdout", tmp_path / "stderr"


def options(files: tuple[Path, Path]) -> list[str]:
    return ["--stdout", str(files[0]), "--stderr", str(files[1])]


def test_both_streams_are_kept_and_shown(init: PraxisInit, files: tuple[Path, Path]) -> None:
    done = init.run("sh", "-c", "cat; echo err >&2; exit 7", options=options(files), stdin=b"in\0\xff")
    assert (done.code, done.stdout, done.stderr) == (7, b"in\0\xff", b"err\n")
    assert [file.read_bytes() for file in files] == [b"in\0\xff", b"err\n"]


def test_a_large_stream_is_kept_whole_and_shown_at_its_beginning(init: PraxisInit, files: tuple[Path, Path]) -> None:
    size = 20_000_000
    done = init.run("sh", "-c", f"head -c {size} /dev/zero; echo end", options=options(files))
    assert (done.code, files[0].stat().st_size) == (0, size + 4)
    assert 0 < len(done.stdout) <= SHOWN
    assert set(done.stdout) == {0}


def test_streams_that_a_script_opens_again_lose_nothing(init: PraxisInit, files: tuple[Path, Path]) -> None:
    script = "echo 1 >&2; echo 2 > /dev/stderr; echo 3 >&2; echo a; echo b > /dev/stdout; echo c"
    init.run("sh", "-c", script, options=options(files))
    assert [file.read_text() for file in files] == ["a\nb\nc\n", "1\n2\n3\n"]


def test_a_listener_that_takes_nothing_holds_nothing_up(init: PraxisInit, files: tuple[Path, Path]) -> None:
    size = 5_000_000
    command = ("sh", "-c", f"head -c {size} /dev/zero")
    with init.start(*command, options=options(files), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.process.wait(PATIENCE) == 0
    assert files[0].stat().st_size == size


def test_output_of_what_the_command_left_behind_is_kept_up_to_its_end(
    init: PraxisInit, files: tuple[Path, Path]
) -> None:
    done = init.run("sh", "-c", "(sleep 1000; echo late) & echo early", options=options(files))
    assert (done.code, files[0].read_text()) == (0, "early\n")


def test_a_deadline_ends_a_command_that_writes_without_end(init: PraxisInit, files: tuple[Path, Path]) -> None:
    def run(seconds: float) -> Outcome:
        limits = ["--timeout", str(seconds), "--kill-after", "0.3"]
        return init.run("sh", "-c", "while :; do echo x; sleep 0.01; done", options=[*options(files), *limits])

    done = past_its_deadline(run, lambda _: files[0].read_text())
    assert done.code == 124
    assert files[0].read_text().startswith("x\n")


def test_a_disk_that_is_full_is_reported_and_the_command_comes_to_its_end(init: PraxisInit, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    report, mark = tmp_path / "report", tmp_path / "mark"
    words = [*options((full, tmp_path / "stderr")), "--report", str(report)]
    done = init.run("sh", "-c", f"head -c 1000000 /dev/zero; echo > {mark}", options=words)
    assert (done.code, mark.exists()) == (125, True)
    assert parse_report(report.read_text()) == Ended(EndKind.SETUP_FAILED, 28, "output")


@pytest.mark.parametrize("words", [["--stdout", "/tmp/x"], ["--stderr", "/tmp/x"], ["--stdout", "", "--stderr", "x"]])
def test_one_file_without_the_other_is_refused(init: PraxisInit, words: list[str]) -> None:
    assert init.run("true", options=words).code == 125


def test_a_file_that_cannot_be_made_is_a_failed_setup(init: PraxisInit, tmp_path: Path) -> None:
    done = init.run("true", options=options((tmp_path / "no" / "x", tmp_path / "y")))
    assert (done.code, b"output" in done.stderr) == (125, True)
