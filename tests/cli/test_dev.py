"""`praxis-mcp dev`, at the keys and without a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.kit.terminals import on_terminal
from tests.kit.until import until_blocking

TOOL = """\
name: count
description: Count words.
engine: local
command: [/bin/sh, "{contract_dir}/main.sh"]
parameters:
  text: {type: string, description: The text.}
  plus: {type: integer, description: What is added., default: 0}
output: json
examples:
  - {name: three, arguments: {text: a b c}, expect_json: {words: 3}}
  - {name: two, arguments: {text: a b}, expect_json: {words: 2}}
"""
CODE = 'set -- $text; echo "{\\"words\\": $(($# + plus))}"'
DEV = (sys.executable, "-m", "praxis_mcp", "dev")
KEYS = "r call again"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    tool = tmp_path / "mine" / "count"
    tool.mkdir(parents=True)
    (tool / "contract.yaml").write_text(TOOL)
    (tool / "main.sh").write_text(CODE)
    return tmp_path


def test_a_change_shows_findings_outcomes_and_the_answer_as_a_client_gets_it(project: Path) -> None:
    tool = project / "mine" / "count"
    with on_terminal((*DEV, "mine"), project) as terminal:
        seen = terminal.expect(KEYS)
        first = terminal.text
        assert "1 tool in " in first
        assert "2 passed, 0 failed" in first
        shown = first.partition('count {"text": "a b c"}\n')[2]
        assert shown.startswith(
            '  content (text):\n    {"words": 3}\n  structuredContent:\n    {\n      "words": 3\n    }\n'
        )
        assert "isError: false" in shown
        (tool / "main.sh").write_text("echo '{}'; echo no >&2; exit 3")
        seen = terminal.expect(KEYS, after=seen)
        again = terminal.text.partition("count changed")[2]
        assert "✗ count: three" in again
        assert "0 passed, 2 failed" in again
        assert "isError: true" in again
        (tool / "contract.yaml").write_text(TOOL.replace("output:", "outputs:"))
        seen = terminal.expect(KEYS, after=seen)
        assert "contract.yaml:8:1: error [outputs]" in terminal.text
        (tool / "contract.yaml").write_text(TOOL)
        terminal.expect("Nothing is wrong with the contracts any more.", after=seen)
        terminal.type("q")
        assert terminal.wait() == 0


def test_keys_call_again_take_other_arguments_run_all_and_list(project: Path) -> None:
    with on_terminal((*DEV, "mine"), project) as terminal:
        seen = terminal.expect(KEYS)
        assert not terminal.is_cooked
        terminal.type("r")
        seen = terminal.expect(KEYS, after=seen)
        assert "✓ count: three" in terminal.text
        for line, call in (
            ("plus=4", 'count {"text": "a b c", "plus": 4}'),
            ("2", 'count {"text": "a b"}'),
            ('count {"text": "a"}', 'count {"text": "a"}'),
        ):
            terminal.type("e")
            seen = terminal.expect("> ", after=seen)
            until_blocking(lambda: terminal.is_cooked)
            terminal.type(line + "\n")
            seen = terminal.expect(f"{call}\n  content (text)", after=seen)
            seen = terminal.expect(KEYS, after=seen)
        for line, trouble in (
            ("9", "none is number 9"),
            ("'", "quotation mark"),
            ("plus=x", "must be"),
            ("what", "what"),
        ):
            terminal.type("e")
            seen = terminal.expect("> ", after=seen)
            until_blocking(lambda: terminal.is_cooked)
            terminal.type(line + "\n")
            seen = terminal.expect("error: ", after=seen)
            seen = terminal.expect(KEYS, after=terminal.expect(trouble, after=seen))
        terminal.type("a")
        seen = terminal.expect("2 passed, 0 failed", after=seen)
        seen = terminal.expect(KEYS, after=seen)
        terminal.type("l")
        seen = terminal.expect("count (2 passed, 0 failed): text plus", after=seen)
        terminal.type("\x1b[A?")
        terminal.expect(KEYS, after=terminal.expect(KEYS, after=seen))
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_cooked


def test_a_tool_without_examples_is_called_with_arguments_that_are_typed(project: Path) -> None:
    (project / "mine" / "count" / "contract.yaml").write_text(TOOL.partition("examples:")[0])
    with on_terminal((*DEV, "mine"), project) as terminal:
        seen = terminal.expect(KEYS, after=terminal.expect("count has no examples: press e"))
        terminal.type("e")
        seen = terminal.expect("> ", after=seen)
        terminal.type("text='a b c d'\n")
        terminal.expect('{"words": 4}', after=seen)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_gives_the_terminal_back(project: Path, number: signal.Signals) -> None:
    (project / "mine" / "count" / "main.sh").write_text("sleep 600")
    with on_terminal((*DEV, "mine"), project) as terminal:
        terminal.expect("1 tool in")
        until_blocking(lambda: not terminal.is_cooked)
        terminal.signal(number)
        assert terminal.wait() == 0
        assert terminal.is_cooked


def test_who_stops_it_finds_the_terminal_as_it_was_and_goes_on_with_keys(project: Path) -> None:
    with on_terminal((*DEV, "mine"), project) as terminal:
        seen = terminal.expect(KEYS)
        for _ in range(2):
            terminal.type("\x1a")
            terminal.until_stopped()
            assert terminal.is_cooked
            terminal.signal(signal.SIGCONT)
            until_blocking(lambda: not terminal.is_cooked)
            terminal.type("r")
            seen = terminal.expect(KEYS, after=seen)


def test_a_defect_gives_the_terminal_back_too(project: Path) -> None:
    code = (
        "import sys; from praxis_mcp.cli import dev, main\n"
        "def fail(*_): raise ZeroDivisionError\n"
        "dev.read_call = fail\n"
        "sys.argv = ['praxis-mcp', 'dev', 'mine']\n"
        "main()\n"
    )
    with on_terminal((sys.executable, "-c", code), project) as terminal:
        seen = terminal.expect(KEYS)
        terminal.type("e")
        terminal.expect("> ", after=seen)
        terminal.type("plus=1\n")
        terminal.expect("ZeroDivisionError")
        assert terminal.wait() == 1
        assert terminal.is_cooked


def test_without_a_terminal_it_prints_lines_until_it_is_ended(project: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*DEV, "mine"],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        killer = threading.Timer(60, process.kill)
        killer.start()
        try:
            assert process.stdout is not None
            lines: list[str] = []

            def until_ready() -> list[str]:
                began = len(lines)
                for line in process.stdout or ():
                    lines.append(line)
                    if line.startswith("Waiting for changes"):
                        return lines[began:]
                raise AssertionError(lines)

            assert "2 passed, 0 failed\n" in until_ready()
            (project / "mine" / "count" / "main.sh").write_text("false")
            assert "0 passed, 2 failed\n" in until_ready()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
            assert "\x1b" not in "".join(lines)
        finally:
            killer.cancel()
            process.kill()


def test_what_a_tool_writes_steers_no_terminal(project: Path) -> None:
    (project / "mine" / "count" / "contract.yaml").write_text(TOOL.replace("output: json\n", ""))
    (project / "mine" / "count" / "main.sh").write_text("printf '\\033[2Jgone\\rx'")
    with on_terminal((*DEV, "mine"), project) as terminal:
        terminal.expect("isError")
        assert "\\x1b[2Jgone" in terminal.text
        assert "\x1b" not in terminal.text


def test_serve_on_a_terminal_says_that_it_waits_for_a_client_and_ends_on_ctrl_c(project: Path) -> None:
    with on_terminal((sys.executable, "-m", "praxis_mcp", "serve", "mine"), project) as terminal:
        seen = terminal.expect("This waits for an MCP client")
        terminal.expect("1 tool in ", after=seen)
        terminal.type("\x03")
        assert terminal.wait() == 0
