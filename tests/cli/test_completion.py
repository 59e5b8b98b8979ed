"""What a shell offers behind Tab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONTRACT = """\
name: count
description: |
  Counts.
  In units.
image: busybox:1.36
command: [wc]
parameters:
  text: string
  unit: {type: string, enum: [words, lines]}
  exact: boolean
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tools/count").mkdir(parents=True)
    (tmp_path / "tools/count/contract.yaml").write_text(CONTRACT)
    (tmp_path / "tools/broken.contract.yaml").write_text("name: [")
    return tmp_path


def completed(place: Path, *words: str, shell: str = "bash", **environment: str) -> str:
    """What is printed for a shell whose user presses Tab at the end of the last word."""
    asked = {
        "_PRAXIS_MCP_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    program = [sys.executable, "-c", "import sys; sys.argv = ['praxis-mcp']; from praxis_mcp.cli import main; main()"]
    env = {**os.environ, **asked, **environment, "_PRAXIS_MCP_COMPLETE": f"complete_{shell}"}
    done = subprocess.run(program, env=env, cwd=place, capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("command", ["call", "explain", "test"])
def test_tools_are_offered_where_a_command_takes_one(project: Path, command: str) -> None:
    assert completed(project, "praxis-mcp", command, "co").split() == ["count"]
    assert completed(project, "praxis-mcp", command, "x").split() == []


def test_the_directory_of_the_command_line_counts(project: Path) -> None:
    words = ("praxis-mcp", "call", "--tools", str(project / "tools"), "c")
    assert completed(project.parent, *words).split() == ["count"]


def test_arguments_that_are_not_there_yet_are_offered_with_their_values(project: Path) -> None:
    offered = completed(project, "praxis-mcp", "call", "count", "text", "=", "a", "").split()
    assert offered == ["unit=words", "unit=lines", "exact=true", "exact=false"]
    assert completed(project, "praxis-mcp", "call", "count", "te").split() == ["text="]


def test_values_are_offered_behind_the_sign_which_bash_takes_for_a_word(project: Path) -> None:
    assert completed(project, "praxis-mcp", "call", "count", "unit", "=").split() == ["words", "lines"]
    assert completed(project, "praxis-mcp", "call", "count", "unit", "=", "l").split() == ["lines"]


def test_other_shells_have_the_whole_word_and_what_a_tool_does(project: Path) -> None:
    told = completed(project, shell="zsh", _TYPER_COMPLETE_ARGS="praxis-mcp call count unit=l")
    assert "unit=lines" in told
    assert '"count":"Counts."' in completed(project, shell="zsh", _TYPER_COMPLETE_ARGS="praxis-mcp call c")


def test_a_shell_is_offered_nothing_that_it_could_run(project: Path) -> None:
    # zsh evaluates all of it between double quotes; bash puts a word on the line as it is.
    parameters = """\
parameters:
  unit: {type: string, enum: ['\\$(touch gone)', '`touch gone`', 'a;touch gone', "a\\nb", lines]}
  'a$(touch gone)': string
"""
    text = f"name: count\nimage: x\ncommand: [wc]\ndescription: '\\$(touch gone) `x` \\\\ [bold]Counts.'\n{parameters}"
    (project / "tools/count/contract.yaml").write_text(text)
    for shell in ("bash", "zsh", "fish"):
        for line in ("praxis-mcp call ", "praxis-mcp call count ", "praxis-mcp call count unit="):
            told = completed(
                project,
                *line.split(" "),
                shell=shell,
                _TYPER_COMPLETE_ARGS=line,
                _TYPER_COMPLETE_FISH_ACTION="get-args",
            )
            assert "count" in told or "lines" in told
            assert not {"$", "`", "\\", ";"} & set(told), told


@pytest.mark.parametrize("settings", ["tools: [", "nothing: 1", "tools: /nonexistent"])
def test_nothing_is_offered_and_nothing_is_said_where_the_settings_cannot_be_read(project: Path, settings: str) -> None:
    (project / "mine.yaml").write_text(settings)
    assert completed(project, "praxis-mcp", "call", "--config", "mine.yaml", "c").split() == []
