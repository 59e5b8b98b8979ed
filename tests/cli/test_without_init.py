"""A copy of praxis-mcp whose praxis-init could not be built says so: in doctor, at start, and where it refuses."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.upstreams import ROOT

CONTRACT = """
name: quiet
description: Needs no network.
engine: dagger
image: busybox:1.36
command: ["true"]
"""


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a build without a compiler leaves, in a directory of its own."""
    without = shutil.ignore_patterns("_native", "__pycache__")
    shutil.copytree(ROOT / "praxis_mcp", tmp_path / "copy" / "praxis_mcp", ignore=without)
    shutil.copytree(ROOT / "native", tmp_path / "copy" / "native")
    native = runpy.run_path(str(ROOT / "native" / "build.py"))
    with monkeypatch.context() as patched:
        patched.setenv("PRAXIS_NATIVE_COMPILER", "zig")
        patched.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(native["NativeBuildError"]):
            native["build"](tmp_path / "copy")
    (tmp_path / "work" / "tools" / "quiet").mkdir(parents=True)
    (tmp_path / "work" / "tools" / "quiet" / "contract.yaml").write_text(CONTRACT)
    return tmp_path / "copy"


def run(copy: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "praxis_mcp", *words],
        cwd=copy.parent / "work",
        env={**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "500", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_doctor_says_why_praxis_init_is_missing_and_how_to_get_it(copy: Path) -> None:
    found = json.loads(run(copy, "doctor", "--json").stdout)["praxis_init"]
    assert found["there"] is False
    assert "was not built when praxis-mcp was installed" in found["why"]
    assert "the package `ziglang`" in found["why"]
    assert found["remedy"].startswith("Install the wheel of praxis-mcp")
    assert found["why"] in run(copy, "doctor").stdout


def test_a_server_says_so_when_it_starts(copy: Path) -> None:
    served = run(copy, "serve")
    assert (served.returncode, served.stdout) == (0, "")
    assert "praxis-init was not built" in served.stderr
    assert "python native/build.py" in served.stderr


@pytest.mark.docker
@pytest.mark.dagger
def test_a_tool_that_is_refused_for_it_is_refused_with_how_to_fix_it(copy: Path, tmp_path: Path) -> None:
    from tests.engines.dagger.case import connection

    double = connection(tmp_path)
    engines = {"order": ["dagger"], "dagger": {name: str(value) for name, value in double.items()}}
    called = run(copy, "call", "quiet", PRAXIS_ENGINES=json.dumps(engines))
    assert called.returncode != 0
    assert "network: none" in called.stderr
    assert "pip install ziglang && python native/build.py" in called.stderr


def test_a_first_tool_is_written_that_works_without_it_and_says_what_that_costs(copy: Path, tmp_path: Path) -> None:
    variables = {"PRAXIS_ENGINES__LOCAL__SANDBOX": "off", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert run(copy, "init", "mine", **variables).returncode == 0
    contract = (copy.parent / "work/mine/tools/count_text/contract.yaml").read_text()
    assert "# Nothing on this machine can take the network from a program." in contract
    assert "\nnetwork: host\n" in contract
    tested = run(copy, "test", "--config", "mine/praxis.yaml", **variables)
    assert tested.returncode == 0, tested.stderr
    assert tested.stdout.endswith("3 passed, 0 failed\n")
