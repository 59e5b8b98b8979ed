"""A server that is to end while it still starts ends normally, and shows no traceback, whatever it is busy with."""

import signal
import subprocess
from pathlib import Path

import pytest

from praxis_mcp.serving.wire import stop_signals
from tests.serving.clients import LIMIT, server_command, server_environment

# Whatever the signal raises is caught, as in pydantic's imports.
SIGNALLED = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have what they start in the background ignore it
sent = []

def hook(event, arguments):
    if event == {event!r} and f"/{{arguments[0]}}".endswith({subject!r}) and not sent:
        sent.append(event)
        try:
            os.kill(os.getpid(), {number})
        except BaseException:
            pass

sys.addaudithook(hook)
"""
MOMENTS = {
    "the settings' imports": ("import", "/pydantic_settings"),
    "the server's imports": ("import", "/mcp"),
    "the first scan": ("open", ".contract.json"),
    "opening the socket": ("socket.bind", ""),
}
"""Audit events, and how what they are about ends."""


def end_of(directory: Path, place: Path, moment: tuple[str, str], number: int, *words: str) -> tuple[int, str]:
    """The exit code and standard error of a server that gets a signal at a moment."""
    event, subject = moment
    (place / "sitecustomize.py").write_text(SIGNALLED.format(event=event, subject=subject, number=int(number)))
    with subprocess.Popen(
        server_command(str(directory), *words),
        env=server_environment(PYTHONPATH=str(place)),
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            code = process.wait(LIMIT)
            return code, process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize("number", stop_signals())
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_a_server_ends_normally_at_a_signal(
    sample_directory: Path, tmp_path: Path, transport: str, moment: str, number: signal.Signals
) -> None:
    if transport == "stdio" and moment == "opening the socket":
        pytest.skip("stdio has none")
    words = ("--http", "--port", "0") if transport == "http" else ()
    code, log = end_of(sample_directory, tmp_path, MOMENTS[moment], number, *words)
    assert (code, "Traceback" in log) == (0, False), log


@pytest.mark.parametrize("module", ["/typer", "/pydantic"])
def test_a_command_that_is_interrupted_before_it_begins_shows_no_traceback(
    sample_directory: Path, tmp_path: Path, module: str
) -> None:
    code, log = end_of(sample_directory, tmp_path, ("import", module), signal.SIGINT)
    assert (code, log) == (-signal.SIGINT, "")
