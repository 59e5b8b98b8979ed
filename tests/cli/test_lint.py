"""`praxis-mcp lint`, as people, scripts, GitHub Actions and pre-commit run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts import checks_table
from tests.kit.command_line import praxis

ROOT = Path(__file__).resolve().parents[2]
PICK = """\
name: pick
description: Picks some of the colors, by chance.
image: busybox:1.36
command: ["true"]
parameters:
  colors:
    type: array
    description: Of which.
  count: {type: integer, default: 1}
examples:
  - arguments: {colors: [red]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tools" / "pick").mkdir(parents=True)
    (tmp_path / "tools" / "pick" / "contract.yaml").write_text(PICK)
    return tmp_path


def test_the_documentation_shows_what_is_printed(project: Path) -> None:
    done = praxis("lint", "tools", cwd=project)
    assert done.returncode == 1
    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    assert f"$ praxis-mcp lint tools\n{done.stdout}" in text


def test_the_table_of_the_documentation_is_that_of_the_code() -> None:
    assert checks_table.expected() == checks_table.FILE.read_text(encoding="utf-8"), "scripts/checks_table.py --write"


def test_findings_are_json_for_scripts(project: Path) -> None:
    done = praxis("lint", "--json", "--ignore", "array-items", "--strict", cwd=project)
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["passed"], shown["tools"], shown["ignored"]) == (1, False, 1, 1)
    (found,) = shown["findings"]
    assert (found["code"], found["severity"], found["line"]) == ("parameter-description", "warning", 9)
    assert praxis("lint", "--json", "--ignore", "array-items", cwd=project).returncode == 0


def test_settings_leave_checks_out(project: Path) -> None:
    (project / "praxis.yaml").write_text("lint: {ignore: [array-items, parameter-description]}\n")
    done = praxis("lint", "--strict", "--config", "praxis.yaml", cwd=project)
    assert (done.returncode, done.stdout) == (0, "1 tool, 0 errors, 0 warnings, 2 ignored\n")
    (project / "praxis.yaml").write_text("lint: {ignore: [aray-items]}\n")
    done = praxis("lint", "--config", "praxis.yaml", cwd=project)
    assert done.returncode == 2
    assert 'did you mean "array-items"' in done.stderr


def test_annotations_name_file_and_line_and_no_contract_makes_a_command_of_its_own(project: Path) -> None:
    name = "a,b:c%\n::error::x"
    (project / "tools" / f"{name}.contract.yaml").write_text("name: x.y\n")
    done = praxis("lint", "--github", cwd=project)
    lines = done.stdout.splitlines()
    assert all(line.startswith(("::error file=", "::warning file=")) for line in lines[:-1])
    assert "::error file=tools/pick/contract.yaml,title=array-items,line=6,col=3::" in done.stdout
    assert "file=tools/a%2Cb%3Ac%25\\n%3A%3Aerror%3A%3Ax.contract.yaml," in done.stdout


def test_checks_can_be_listed() -> None:
    shown = json.loads(praxis("lint", "--list-checks", "--json", cwd=ROOT).stdout)
    assert {"code": "no-examples", "level": "warning", "finds": "a contract without examples"} in shown
    assert "no-examples" in praxis("lint", "--list-checks", cwd=ROOT).stdout


@pytest.mark.skipif(os.name == "nt", reason="the action runs bash")
@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 1)])
def test_the_action_runs_it_over_the_directories(project: Path, strict: str, code: int) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (step,) = action["runs"]["steps"]
    # Stands in for pipx, which would make an environment of this very source.
    programs = project / "bin"
    programs.mkdir()
    stand_in = '#!/bin/sh\n[ "$1 $2 $3 $4" = "run --spec $SOURCE praxis-mcp" ] || exit 99\nshift 4\n'
    (programs / "pipx").write_text(f'{stand_in}exec {sys.executable} -m praxis_mcp "$@"\n')
    (programs / "pipx").chmod(0o755)
    inputs = {"SOURCE": "/a path", "DIRECTORIES": "tools", "STRICT": strict, "ARGUMENTS": "--ignore array-items"}
    assert inputs.keys() == step["env"].keys()
    env = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **inputs}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert "title=parameter-description,line=9" in done.stdout


def test_pre_commit_takes_the_hook() -> None:
    manifest = ROOT / ".pre-commit-hooks.yaml"
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", str(manifest)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
