"""``praxis-mcp image from-host``, from the command to a tool that runs in what it made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from praxis_mcp.cli.common import EXIT_ENGINE
from tests.kit.places import PYTHON

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's programs")

Run = Callable[..., "subprocess.CompletedProcess[str]"]

CONTRACT = """\
name: where
description: Says where its Python is.
image: localhost/python
engine: sandbox
command:
  - python3
  - -c
  - |
    import json, os, sqlite3, ssl, sys
    print(json.dumps([sys.version, json.__cached__, os.getcwd(), os.listdir("/")]))
parameters: {}
"""


@pytest.fixture
def praxis(tmp_path: Path) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "PRAXIS_PULL": "never"}
        command = [sys.executable, "-m", "praxis_mcp", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.mark.bubblewrap
def test_a_contract_runs_the_python_of_this_machine_in_an_image_that_no_registry_has(
    praxis: Run, tmp_path: Path
) -> None:
    made = praxis("image", "from-host", "localhost/python", PYTHON)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("localhost/python:latest sha256:")
    (tmp_path / "tools/where").mkdir(parents=True)
    (tmp_path / "tools/where/contract.yaml").write_text(CONTRACT)
    called = praxis("call", "where", "--tools", str(tmp_path / "tools"))
    assert called.returncode == 0, called.stderr
    version, cached, directory, root = json.loads(called.stdout)
    assert (version, directory) == (sys.version, "/")
    assert Path(cached).is_absolute()
    assert not {"home", "var", "boot"} & set(root), "nothing else of this machine"


def test_it_says_what_it_took_on_standard_error_and_lists_it_where_asked(praxis: Run) -> None:
    made = praxis("image", "from-host", "--files", "localhost/env", "env")
    assert made.returncode == 0, made.stderr
    first, *listed = made.stdout.splitlines()
    assert first.startswith("localhost/env:latest sha256:")
    assert [line for line in listed if line.endswith("/env") and line.split()[0].isdecimal()]
    assert "with its loader and libraries" in made.stderr
    assert f"{len(listed)} files, directories and links; " in made.stderr
    assert "with image: localhost/env and engine: sandbox" in made.stderr
    assert "localhost/env" in praxis("image", "ls").stdout


def test_what_cannot_be_taken_is_an_error_that_says_what_to_do(praxis: Run) -> None:
    for words, said in (
        (("no-such-program",), "no program 'no-such-program' on the PATH"),
        (("env", "--max-files", "3"), "more than 3 files"),
        (("env", "--with", "/nowhere"), "/nowhere cannot be taken: No such file or directory"),
    ):
        done = praxis("image", "from-host", "localhost/x", *words)
        assert (done.returncode, done.stdout) == (EXIT_ENGINE, "")
        assert said in done.stderr
    assert json.loads(praxis("image", "ls", "--json").stdout) == []
