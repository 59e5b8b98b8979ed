"""`praxis-mcp test --watch`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.kit.terminals import on_terminal
from tests.kit.until import until_blocking

TOOL = """\
name: {name}
description: Greet somebody.
engine: local
command: [/bin/sh, "{{contract_dir}}/main.sh"]
parameters:
  who: {{type: string, description: Whom to greet.}}
examples:
  - {{name: Greets, arguments: {{who: Ada}}, expect: "Hello, Ada"}}
"""
WATCH = (sys.executable, "-m", "praxis_mcp", "test", "--watch")
READY = "Waiting for changes"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("greet", "other"):
        (tmp_path / "tools" / name).mkdir(parents=True)
        (tmp_path / "tools" / name / "contract.yaml").write_text(TOOL.format(name=name))
        (tmp_path / "tools" / name / "main.sh").write_text('echo "Hello, $who"')
    return tmp_path


def test_what_a_change_touches_is_run_again_until_it_is_interrupted(project: Path) -> None:
    greet = project / "tools" / "greet"
    with on_terminal(WATCH, project) as terminal:
        seen = terminal.expect(READY)
        assert "2 passed, 0 failed" in terminal.text
        (greet / "main.sh").write_text('echo "Hi, $who"')
        seen = terminal.expect(READY, after=seen)
        again = terminal.text[:seen].partition("greet changed")[2]
        assert "printed 'Hi, Ada', not 'Hello, Ada'" in again
        assert ("0 passed, 1 failed" in again, "other" in again) == (True, False)
        (greet / "contract.yaml").write_text(TOOL.format(name="greet").replace("Hello", "Hi"))
        seen = terminal.expect("1 passed, 0 failed", after=seen)
        (greet / "contract.yaml").write_text("name: greet\n")
        seen = terminal.expect("stays as it was", after=terminal.expect("contracts changed", after=seen))
        (greet / "contract.yaml").write_text(TOOL.format(name="greet").replace("Hello", "Hi"))
        terminal.expect("Nothing is wrong with the contracts any more", after=seen)
        terminal.type("\x03")
        assert terminal.wait() == 0


def test_only_the_named_tools_are_watched_and_one_that_is_not_there_is_refused(project: Path) -> None:
    with on_terminal((*WATCH, "greet"), project) as terminal:
        seen = terminal.expect(READY)
        assert "1 passed, 0 failed" in terminal.text
        (project / "tools" / "other" / "main.sh").write_text("false")
        (project / "tools" / "greet" / "main.sh").write_text("false")
        terminal.expect("0 passed, 1 failed", after=seen)
        assert "other" not in terminal.text
        (project / "tools" / "other" / "contract.yaml").write_text("name: other\nimige: x\n")
        (project / "tools" / "greet" / "contract.yaml").write_text("name: greet\nimage: x\ntimout: 3\n")
        terminal.expect('did you mean "timeout"?', after=seen)
        assert "other" not in terminal.text
        terminal.signal(signal.SIGTERM)
        assert terminal.wait() == 0
    with on_terminal((*WATCH, "gret"), project) as terminal:
        terminal.expect("There is no tool")
        assert terminal.wait() == 2


def test_a_change_ends_what_is_under_way_and_it_is_run_again(project: Path) -> None:
    code = project / "tools" / "greet" / "main.sh"
    code.write_text(f"echo > '{project}/begun'; sleep 600")
    with on_terminal((*WATCH, "greet"), project, {"PRAXIS_ENGINES__LOCAL__SANDBOX": "off"}) as terminal:
        until_blocking((project / "begun").exists)
        code.write_text('echo "Hello, $who"')
        terminal.expect("1 passed, 0 failed")
