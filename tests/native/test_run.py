"""What a caller sees of one command: its exit code, its streams, its report."""

import errno
import os
import select
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from praxis_mcp.support.praxis_init import Ended, EndKind, parse_report
from tests.native.harness import IS_ROOT, NOBODY, PATIENCE, PraxisInit


@pytest.mark.parametrize("code", [0, 1, 7, 124, 125, 126, 127, 255])
def test_the_commands_exit_code_is_passed_on(placed: PraxisInit, code: int) -> None:
    assert placed.run("sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_death_by_a_signal_is_128_and_its_number(init: PraxisInit, tmp_path: Path, number: signal.Signals) -> None:
    report = tmp_path / "report"
    done = init.run("sh", "-c", f"ulimit -c 0; kill -{number} $$", options=["--report", str(report)])
    assert done.code == 128 + number
    assert parse_report(report.read_text()) == Ended(EndKind.SIGNAL, number)


def test_a_command_that_is_nowhere_on_the_path_is_127(init: PraxisInit, tmp_path: Path) -> None:
    report = tmp_path / "report"
    done = init.run("praxis-no-such-command", options=["--report", str(report)])
    assert done.code == 127
    assert done.stderr == b"praxis-init: cannot run 'praxis-no-such-command': No such file or directory\n"
    assert parse_report(report.read_text()) == Ended(EndKind.EXEC_FAILED, errno.ENOENT)


def test_a_file_that_cannot_be_executed_is_126(init: PraxisInit, tmp_path: Path) -> None:
    report, tool = tmp_path / "report", tmp_path / "tool"
    tool.write_text("not a program")
    tool.chmod(0o644)
    assert init.run(str(tool), options=["--report", str(report)]).code == 126
    assert parse_report(report.read_text()) == Ended(EndKind.EXEC_FAILED, errno.EACCES)
    tool.chmod(0o755)
    assert init.run(str(tool), options=["--report", str(report)]).code == 126
    assert parse_report(report.read_text()) == Ended(EndKind.EXEC_FAILED, errno.ENOEXEC)


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to become nobody")
def test_a_folder_of_the_path_that_is_closed_to_the_user_makes_no_command_forbidden(
    init: PraxisInit, tmp_path: Path
) -> None:
    closed, forbidden = tmp_path / "closed", Path(tempfile.mkdtemp(prefix="praxis-init-path-"))
    closed.mkdir(mode=0o700)
    try:
        forbidden.chmod(0o755)
        (forbidden / "my-tool").touch(mode=0o600)
        missing = init.run("my-tool", env={"PATH": f"{closed}:/usr/bin"}, user=NOBODY, cwd="/")
        present = init.run("my-tool", env={"PATH": f"{closed}:{forbidden}"}, user=NOBODY, cwd="/")
    finally:
        shutil.rmtree(forbidden)
    assert (missing.code, present.code) == (127, 126)


def test_the_command_is_looked_up_on_the_path_of_its_environment(init: PraxisInit, tmp_path: Path) -> None:
    tool = tmp_path / "my-tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    assert init.run("my-tool", env={"PATH": str(tmp_path)}).stdout == b"found\n"


HIDDEN = "OTEL_,TRACEPARENT"


def test_variables_are_hidden_by_the_beginning_of_their_name_and_kept_ones_get_theirs_back(init: PraxisInit) -> None:
    env = {"OTEL_A": "theirs", "OTEL_B": "theirs", "TRACEPARENT": "theirs", "NOTEL_": "stays", "OTE": "stays"}
    env |= {"PRAXIS_KEPT_OTEL_A": "ours", "PRAXIS_KEPT_NEW": "a=b"}
    done = init.run("/usr/bin/env", options=["--hide", HIDDEN], env=env)
    assert sorted(done.stdout.split()) == [b"NEW=a=b", b"NOTEL_=stays", b"OTE=stays", b"OTEL_A=ours"]
    assert sorted(init.run("/usr/bin/env", env=env).stdout.split()) == sorted(
        f"{k}={v}".encode() for k, v in env.items()
    )


@pytest.mark.parametrize("names", ["", ",", "A,", ",A", "A,,B"])
def test_an_empty_name_would_hide_every_variable_and_is_refused(init: PraxisInit, names: str) -> None:
    done = init.run("echo", "ran", options=["--hide", names])
    assert (done.code, done.stdout) == (125, b"")
    assert b"--hide" in done.stderr


def test_the_report_tells_a_commands_own_124_from_the_deadline(init: PraxisInit, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert init.run("sh", "-c", "exit 124", options=["--report", str(report)]).code == 124
    assert report.read_text() == "exit 124\n"
    late = init.run("sleep", "1000", options=["--timeout", "0.1", "--report", str(report)])
    assert late.code == 124
    assert report.read_text() == "timeout\n"


def test_a_report_goes_to_a_descriptor_which_the_command_does_not_get(init: PraxisInit) -> None:
    reader, writer = os.pipe()
    try:
        test = f"test ! -e /proc/self/fd/{writer} && exit 3"
        done = init.run("sh", "-c", test, options=["--report", str(writer)], pass_fds=[writer])
        os.close(writer)
        assert (done.code, os.read(reader, 100)) == (3, b"exit 3\n")
    finally:
        os.close(reader)


@pytest.mark.skipif(not IS_ROOT, reason="needs root, to become nobody")
def test_the_command_cannot_forge_the_report_through_praxis_init(init: PraxisInit) -> None:
    # As nobody: root of this machine may open anything. Root of a container has no CAP_SYS_PTRACE, and may not.
    reader, writer = os.pipe()
    try:
        os.fchown(writer, NOBODY, NOBODY)  # or the pipe's own mode would refuse it
        forge = f"echo exit 0 > /proc/$PPID/fd/{writer}; exit 3"
        init.run("sh", "-c", forge, options=["--report", str(writer)], pass_fds=[writer], user=NOBODY)
        os.close(writer)
        assert os.read(reader, 100) == b"exit 3\n"
    finally:
        os.close(reader)


def test_a_report_that_cannot_be_written_stops_the_run_before_it_starts(init: PraxisInit, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    done = init.run("touch", str(trace), options=["--report", str(tmp_path / "missing" / "report")])
    assert done.code == 125
    assert not trace.exists()


def test_both_streams_carry_any_bytes(placed: PraxisInit) -> None:
    payload = os.urandom(3_000_000) + bytes(range(256))
    done = placed.run("sh", "-c", "exec tee /dev/stderr", stdin=payload)
    assert (done.stdout == payload, done.stderr == payload) == (True, True)


def test_a_stream_that_the_command_closes_is_seen_closed_at_once(init: PraxisInit) -> None:
    script = "exec 0<&-; echo ready; exec 1>&-; exec sleep 1000"
    with init.start("sh", "-c", script, stdin=subprocess.PIPE) as running:
        assert running.read_to_end() == b"ready\n"
        assert running.process.stdin is not None
        waiting = select.poll()
        waiting.register(running.process.stdin.fileno(), 0)  # an error is always told
        assert [event for _, event in waiting.poll(PATIENCE * 1000)] == [select.POLLERR]
        assert running.process.poll() is None


def test_a_stream_that_was_closed_stays_closed(init: PraxisInit) -> None:
    inner = [*init.words([], ["sh", "-c", "test ! -e /proc/$$/fd/0"])]
    assert init.run("sh", "-c", 'exec 0<&-; exec "$@"', "sh", *inner).code == 0


def test_the_command_starts_with_the_signals_that_the_caller_left_it(init: PraxisInit) -> None:
    show = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    assert init.run(*show).stdout == subprocess.run(show, capture_output=True, timeout=PATIENCE).stdout


def test_everything_after_the_options_is_the_commands(init: PraxisInit) -> None:
    assert init.run("echo", "--timeout", "x", "--", "-y").stdout == b"--timeout x -- -y\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "--"],
        ["run", "--tiemout", "1", "true"],
        ["run", "--timeout"],
        *(["run", "--timeout", text, "true"] for text in ("0", "0.0", "-1", "nan", "inf", "1e3", "0x1", "", ".", "1s")),
        ["run", "--kill-after", "-1", "true"],
        ["run", "--report", "1", "true"],
        ["run", "--report", "99999999999999999999", "true"],
        ["run", "--report", "77", "true"],
        ["run", "--parent", "0", "true"],
    ],
)
def test_a_wrong_command_line_is_125_with_a_reason(binary: Path, words: list[str]) -> None:
    done = subprocess.run([binary, *words], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 125
    assert done.stderr.startswith(b"praxis-init: ")


def test_help_and_version_are_answered(binary: Path) -> None:
    shown = [subprocess.run([binary, word], capture_output=True, timeout=PATIENCE) for word in ("--help", "--version")]
    assert [done.returncode for done in shown] == [0, 0]
    assert b"--no-network" in shown[0].stdout
    assert shown[1].stdout.startswith(b"praxis-init ")
