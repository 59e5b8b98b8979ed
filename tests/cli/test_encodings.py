"""Every command can be read on every terminal, in a pipe, and by a script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOUT = """\
name: shout
description: >-
  Says a text loudly … and this sentence is so long that it would not fit in a line of eighty columns: 大声 😀 … “so”.
engine: local
command: [/usr/bin/env, printf, '✓ %s', "大"]
parameters: {text: {type: string, default: "→", description: "arrows ← and →"}}
examples: [{name: "An example → with signs ✓", expect: nothing}]
"""
COMMANDS = (
    "list", "list --json", "doctor", "validate", "test", "explain shout", "explain shout --json", "call shout",
    "call nope", "upstreams list", "upstreams approve nobody", "image ls", "image rm nothing", "trust", "trust --list",
    "schema", "token new --name x", "--help", "call --help", "call --nope", "serve --port 1",
)  # fmt: skip
EVERY_COMMAND = f"""
import contextlib, sys
from praxis_mcp.cli import main
for words in {COMMANDS!r}:
    sys.argv = ["praxis-mcp", *words.split()]
    with contextlib.suppress(SystemExit):
        main()
    print()
    print("done:", words, flush=True)
"""


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "shout.contract.yaml").write_text(SHOUT, encoding="utf-8")
    bad = "name: broken\ndescription: Bad ✓.\nengine: local\ncommand: [x]\ntimöut: 5\n"
    (tmp_path / "tools" / "broken.contract.yaml").write_text(bad, encoding="utf-8")
    return tmp_path


def environment(ground: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "PYTHONUTF8")}
    return {**kept, "XDG_CONFIG_HOME": str(ground / "config"), "XDG_DATA_HOME": str(ground / "data"), **more}


def run(ground: Path, *words: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=ground, env=environment(ground, **more), capture_output=True, timeout=120, check=False
    )


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_every_command_writes_look_alikes_of_what_the_encoding_lacks(ground: Path, encoding: str) -> None:
    done = run(ground, "-c", EVERY_COMMAND, PYTHONIOENCODING=encoding)
    errors = done.stderr.decode(encoding)
    assert "Traceback" not in errors, errors
    assert done.returncode == 0
    out = done.stdout.decode(encoding, "replace")  # what a tool wrote is passed on as it is
    assert [line for line in out.splitlines() if line.startswith("done:")] == [f"done: {words}" for words in COMMANDS]
    if encoding == "ascii":
        assert "+  local" in out

        assert "\\u5927\\u58f0" in out
    if encoding == "cp1252":
        assert "  -> " in errors


def test_json_is_the_same_value_in_every_encoding(ground: Path) -> None:
    values = [
        json.loads(run(ground, "-m", "praxis_mcp", "list", "--json", PYTHONIOENCODING=encoding).stdout.decode(encoding))
        for encoding in ("latin-1", "utf-8")
    ]
    assert values[0] == values[1]
    assert "大声 😀" in values[0]["tools"][0]["description"]


def test_a_handler_that_the_user_chose_stays(ground: Path) -> None:
    done = run(ground, "-m", "praxis_mcp", "list", PYTHONIOENCODING="ascii:replace")
    assert "?? ?" in done.stdout.decode("ascii")


def test_a_name_that_is_not_unicode_breaks_no_output(ground: Path) -> None:
    strange = os.fsencode(ground) + b"/tools/\xff.contract.yaml"
    Path(os.fsdecode(strange)).write_text("name: 1\n")
    for encoding in ("utf-8", "latin-1"):
        done = run(ground, "-m", "praxis_mcp", "validate", PYTHONIOENCODING=encoding)
        assert "\\udcff.contract.yaml" in done.stdout.decode(encoding)


def test_progress_is_drawn_on_a_terminal_without_unicode(ground: Path) -> None:
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "praxis_mcp", "call", "shout"],
            cwd=ground,
            env=environment(ground, PYTHONIOENCODING="latin-1", TERM="xterm"),
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=60,
            check=False,
        )
        shown = os.read(ours, 100_000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout.decode() == "✓ 大"
    assert b"running" in shown
    assert b"Traceback" not in shown
    assert b"* running" in shown.replace(b"\x1b[0m", b"").replace(b"\x1b[32m", b"")


def test_in_a_pipe_a_tool_is_a_line_and_nothing_is_cut(ground: Path) -> None:
    for columns in ({}, {"COLUMNS": "40"}):
        lines = run(ground, "-m", "praxis_mcp", "list", **columns).stdout.decode().splitlines()
        assert len(lines) == 2
        assert lines[1].endswith("大声 😀 … “so”.")


@pytest.mark.parametrize(
    ("names", "saying"),
    [((), "0 tools usable, 0 errors, 0 warnings"), (("a", "b"), "2 tools usable"), (("a",), "1 tool usable, 0 errors")],
)
def test_one_is_not_many(tmp_path: Path, names: tuple[str, ...], saying: str) -> None:
    (tmp_path / "tools").mkdir()
    for name in names:
        text = f"name: {name}\ndescription: Does.\nengine: local\ncommand: [/bin/true]\n"
        (tmp_path / "tools" / f"{name}.contract.yaml").write_text(text)
    assert run(tmp_path, "-m", "praxis_mcp", "validate").stdout.decode().startswith(saying)


def test_completion_that_cannot_be_installed_is_said_with_what_to_do_instead(ground: Path) -> None:
    (ground / "home").write_text("a file, so that nothing can be made below it")
    done = run(
        ground,
        "-m",
        "praxis_mcp",
        "--install-completion",
        "bash",
        HOME=str(ground / "home"),
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )
    errors = done.stderr.decode()
    assert errors.startswith("error: Completion could not be installed: ")
    assert "--show-completion" in errors
    assert done.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes the streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_works_with_standard_streams_closed(ground: Path, closed: str) -> None:
    words = ["sh", "-c", f'exec "$0" -m praxis_mcp call shout --log-level DEBUG {closed}', sys.executable]
    done = subprocess.run(words, cwd=ground, env=environment(ground), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (b"" if ">&-" in closed.replace("2>&-", "") else "✓ 大".encode())
    assert b"Traceback" not in done.stderr
