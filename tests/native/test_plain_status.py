"""Exit codes that Dagger takes for a failure of its own travel in the report instead."""

import signal
from pathlib import Path

import pytest

from praxis_mcp.support.praxis_init import EXIT_SETUP_FAILED, Ended, EndKind, parse_report, run_prefix
from tests.native.harness import PraxisInit


@pytest.mark.parametrize("code", [128, 137, 191])
def test_a_code_from_128_to_191_becomes_125_and_the_report_tells_it(
    init: PraxisInit, tmp_path: Path, code: int
) -> None:
    report = tmp_path / "report"
    done = init.run("sh", "-c", f"exit {code}", options=["--plain-status", "--report", str(report)])
    assert done.code == EXIT_SETUP_FAILED
    assert parse_report(report.read_text()) == Ended(EndKind.EXIT, code)


def test_so_does_death_by_a_signal(init: PraxisInit, tmp_path: Path) -> None:
    report = tmp_path / "report"
    done = init.run("sh", "-c", "kill -9 $$", options=["--plain-status", "--report", str(report)])
    assert done.code == EXIT_SETUP_FAILED
    assert parse_report(report.read_text()) == Ended(EndKind.SIGNAL, signal.SIGKILL)


@pytest.mark.parametrize("code", [0, 3, 127, 192, 255])
def test_any_other_code_stays_as_it_is(init: PraxisInit, tmp_path: Path, code: int) -> None:
    done = init.run("sh", "-c", f"exit {code}", options=["--plain-status", "--report", str(tmp_path / "report")])
    assert done.code == code


def test_without_a_report_it_is_refused(init: PraxisInit) -> None:
    assert init.run("true", options=["--plain-status"]).code == EXIT_SETUP_FAILED
    with pytest.raises(ValueError, match="report"):
        run_prefix("/init", timeout=None, no_network=False, plain_status=True)
