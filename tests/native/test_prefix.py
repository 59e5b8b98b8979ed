"""The words that engines put in front of a command, and the reports they read."""

import math
import platform
import shutil
from pathlib import Path

import pytest

from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.support import praxis_init as native
from praxis_mcp.support.praxis_init import Ended, EndKind, find_missing, parse_report, praxis_init_path, run_prefix
from tests.native.harness import PraxisInit


def test_the_prefix_says_only_what_was_asked() -> None:
    words = run_prefix("/praxis-init", timeout=None, no_network=False, no_new_privileges=False)
    assert words == ["/praxis-init", "run", "--kill-after", "2", "--"]


def test_the_prefix_says_all_that_was_asked() -> None:
    words = run_prefix("/p", timeout=1.5, no_network=True, kill_after=0.25, parent=7, report="/r")
    assert " ".join(words) == "/p run --timeout 1.5 --kill-after 0.25 --no-network --parent 7 --report /r --"


@pytest.mark.parametrize(("seconds", "word"), [(1e-9, "0.000000001"), (1e6, "1000000"), (100, "100"), (0.1, "0.1")])
def test_seconds_are_plain_decimals(seconds: float, word: str) -> None:
    assert run_prefix("/p", timeout=seconds, no_network=False)[3] == word


@pytest.mark.parametrize("seconds", [0, -1, 1e-12, math.nan, math.inf])
def test_a_deadline_that_is_not_valid_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        run_prefix("/p", timeout=seconds, no_network=False)


@pytest.mark.parametrize("report", [0, 2, -1, "", "a\0b"])
def test_a_report_that_cannot_be_is_refused(report: str | int) -> None:
    with pytest.raises(ValueError, match="report"):
        run_prefix("/p", timeout=None, no_network=False, report=report)


def test_a_file_named_by_digits_is_not_a_descriptor() -> None:
    assert "./42" in run_prefix("/p", timeout=None, no_network=False, report="42")


@pytest.mark.parametrize("digits", ["", "0", "zz", "06", "06" * 9, "00" * 8 * 4097])
def test_a_filter_that_is_not_valid_is_refused(init: PraxisInit, digits: str) -> None:
    done = init.run("echo", "ran", options=["--filter", digits])
    assert (done.code, done.stdout) == (125, b"")
    assert b"--filter" in done.stderr


def test_praxis_init_understands_the_prefix(init: PraxisInit, tmp_path: Path) -> None:
    report = tmp_path / "report"
    words = run_prefix("x", timeout=1e9, no_network=True, kill_after=0.000001, report=str(report))
    assert words[-1] == "--"
    assert init.run("sh", "-c", "exit 9", options=words[2:-1]).code == 9
    assert parse_report(report.read_text()) == Ended(EndKind.EXIT, 9)


@pytest.mark.parametrize("machine", ["x86_64", "amd64", "AMD64", "aarch64", "arm64", "ARM64", "arm64/v8"])
def test_every_name_of_a_known_machine_leads_to_its_binary(
    machine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    for name in ("praxis-init-aarch64", "praxis-init-x86_64"):
        (tmp_path / name).write_bytes(b"praxis-init %d\n\0" % native.INIT_VERSION)
    path = praxis_init_path(machine)
    assert path is not None
    assert path.name == ("praxis-init-aarch64" if "ar" in machine.lower() else "praxis-init-x86_64")


def test_an_unknown_machine_has_none() -> None:
    assert praxis_init_path("riscv64") is None


def test_a_package_without_binaries_says_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    assert praxis_init_path("x86_64") is None


def test_a_binary_of_another_version_is_an_error_that_says_how_to_build_it_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    (tmp_path / "praxis-init-x86_64").write_bytes(b"\x7fELF ... praxis-init 2\n\0 ...")
    with pytest.raises(EngineUnavailable, match=r"praxis-init-x86_64 is not the praxis-init") as caught:
        praxis_init_path("x86_64")
    assert "python native/build.py" in str(caught.value.remedy)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert find_missing() == (caught.value.message, caught.value.remedy)


def test_a_binary_is_looked_into_once(binary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    copy = tmp_path / f"praxis-init-{native.normalize_machine(platform.machine())}"
    shutil.copy(binary, copy)
    assert praxis_init_path() == copy
    copy.unlink()
    assert praxis_init_path() == copy


@pytest.mark.parametrize(
    ("text", "end", "code"),
    [
        ("exit 0\n", Ended(EndKind.EXIT, 0), 0),
        ("exit 124\n", Ended(EndKind.EXIT, 124), 124),
        ("signal 9\n", Ended(EndKind.SIGNAL, 9), 137),
        ("timeout\n", Ended(EndKind.TIMEOUT), 124),
        ("exec-failed 2\n", Ended(EndKind.EXEC_FAILED, 2), 127),
        ("exec-failed 13\n", Ended(EndKind.EXEC_FAILED, 13), 126),
        ("setup-failed 95 seccomp\n", Ended(EndKind.SETUP_FAILED, 95, "seccomp"), 125),
    ],
)
def test_a_report_is_read(text: str, end: Ended, code: int) -> None:
    assert parse_report(text) == end
    assert end.exit_code == code


@pytest.mark.parametrize("text", ["", "exit 1", "exit\n", "exit x\n", "timeout 3\n", "gone 1\n"])
def test_a_torn_report_is_not_a_report(text: str) -> None:
    assert parse_report(text) is None
