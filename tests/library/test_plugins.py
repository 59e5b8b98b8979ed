"""Engines that other packages bring: found by their entry points, loaded when asked for, harmless where they fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import praxis_mcp
from praxis_mcp.contracts.model import EngineType
from praxis_mcp.engines.registry import ENGINES
from praxis_mcp.settings.sections import CONTAINER_ENGINES
from praxis_mcp.support.installation import OWN_ENGINES
from tests.kit.contracts import write_contract

THIRD_PARTY = Path(__file__).parent / "third_party"
"""What pip leaves of an installed package: its modules, and the metadata with its entry points."""
HOST_NETWORK = json.dumps({"host_network": True})
IMPORTED = "praxis_tiny is imported"


def run(tools: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "praxis_mcp", *words]
    environment = {**os.environ, "PYTHONPATH": str(THIRD_PARTY), "PRAXIS_POLICY": HOST_NETWORK, **variables}
    return subprocess.run(command, cwd=tools, env=environment, capture_output=True, text=True, timeout=120, check=False)


write = partial(write_contract, description="Says it.", command=["echo", "said"])


def test_the_names_that_no_package_may_take_are_those_of_our_engines() -> None:
    assert set(OWN_ENGINES) == set(ENGINES) == {engine.value for engine in EngineType}
    assert set(CONTAINER_ENGINES) < set(OWN_ENGINES)


@pytest.mark.parametrize("fields", [{}, {"image": "any"}], ids=["command", "image"])
def test_a_contract_asks_for_an_engine_of_another_package_by_its_name(tmp_path: Path, fields: dict[str, str]) -> None:
    write(tmp_path, "say", engine="tiny", network="host", **fields)
    called = run(tmp_path, "call", "--tools", ".", "say")
    assert (called.returncode, called.stdout) == (0, "said\n"), called.stderr


def test_the_settings_may_name_one_for_every_image(tmp_path: Path) -> None:
    write(tmp_path, "say", image="any", network="host")
    engines = json.dumps({"order": ["tiny", "docker"]})
    called = run(tmp_path, "call", "--tools", ".", "say", PRAXIS_ENGINES=engines)
    assert (called.returncode, called.stdout) == (0, "said\n"), called.stderr
    wrong = run(tmp_path, "list", "--tools", ".", PRAXIS_ENGINES=json.dumps({"order": ["tinny"]}))
    assert wrong.returncode != 0
    assert "write one of dagger, docker, " in wrong.stderr
    assert "tiny" in wrong.stderr


def test_what_it_cannot_enforce_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "say", engine="tiny", image="any", network="none")
    called = run(tmp_path, "call", "--tools", ".", "say")
    assert called.returncode != 0
    assert "tiny: cannot enforce" in called.stderr


def test_nothing_of_a_package_is_imported_until_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "ours", engine="local")
    write(tmp_path, "theirs", engine="tiny")
    called = run(tmp_path, "call", "--tools", ".", "ours")
    assert called.stdout == "said\n", called.stderr
    listed = run(tmp_path, "list", "--tools", ".")
    assert "theirs" in listed.stdout
    assert IMPORTED not in called.stderr + listed.stderr


def test_a_contract_is_read_again_once_its_engine_is_installed_or_removed(tmp_path: Path) -> None:
    write(tmp_path, "say", engine="tiny", network="host")
    for is_installed in (False, True, False):
        listed = run(tmp_path, "list", "--tools", ".", PYTHONPATH=str(THIRD_PARTY) if is_installed else "")
        assert ("is not an engine" in listed.stderr) is not is_installed, listed.stderr
        assert ("Says it." in listed.stdout) is is_installed, listed.stderr


def test_the_directory_that_python_is_started_in_brings_no_engine(tmp_path: Path) -> None:
    shutil.copytree(THIRD_PARTY, tmp_path, dirs_exist_ok=True)
    write(tmp_path, "theirs", engine="tiny", network="host")
    command = [sys.executable, "-m", "praxis_mcp", "call", "--tools", ".", "theirs"]
    called = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert called.returncode != 0
    assert '"tiny" is not an engine' in called.stderr
    assert IMPORTED not in called.stderr


def test_a_broken_one_is_an_error_of_its_own_tools_only(tmp_path: Path) -> None:
    write(tmp_path, "ours", engine="local")
    write(tmp_path, "theirs", engine="broken")
    write(tmp_path, "misnamed", engine="misnamed")
    assert run(tmp_path, "call", "--tools", ".", "ours").stdout == "said\n"
    called = run(tmp_path, "call", "--tools", ".", "theirs")
    assert called.returncode != 0
    assert "praxis-tiny 1.2.3" in called.stderr
    assert "a_module_that_is_not_installed" in called.stderr
    misnamed = run(tmp_path, "call", "--tools", ".", "misnamed")
    assert 'is not a praxis_mcp.ExecutionEngine with name = "misnamed"' in misnamed.stderr


def test_doctor_reports_what_is_broken_and_what_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "ours", engine="local")
    done = run(tmp_path, "doctor", "--tools", ".", "--json")
    report = json.loads(done.stdout)
    engines = {item["engine"]: item for item in report["engines"]}
    assert engines["tiny"]["available"]
    assert not engines["broken"]["available"]
    assert "a_module_that_is_not_installed" in engines["broken"]["detail"]
    refused = {item["engine"]: item["why"] for item in report["refused_engines"]}
    assert refused.keys() == {"docker", "Loud"}
    assert "name of an engine of praxis-mcp" in refused["docker"]
    shown = run(tmp_path, "doctor", "--tools", ".", COLUMNS="300").stdout
    assert "docker of praxis-tiny 1.2.3 is not used" in shown
    assert "a_module_that_is_not_installed" in shown


@pytest.mark.timeout(400)
def test_the_conformance_suite_runs_over_an_engine_of_another_package(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    shutil.copytree(THIRD_PARTY / "tests", tests)
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tests), "--strict-markers"]
    choice = "exit_code or kept or refused or mount_can or masked or not_there or cleanup"
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-rfE", "-k", choice, str(tests)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(THIRD_PARTY)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 10


def test_pytest_is_imported_by_the_suite_alone() -> None:
    package = Path(praxis_mcp.__path__[0])
    importing = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) pytest\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert importing == {"testing"}


def test_a_contract_that_names_an_engine_that_nobody_brings_is_refused_with_those_there_are(tmp_path: Path) -> None:
    write(tmp_path, "say", engine="tinny")
    done = run(tmp_path, "validate", ".")
    assert done.returncode != 0
    assert 'did you mean "tiny"?' in done.stdout + done.stderr
    schema = json.loads(run(tmp_path, "schema").stdout)
    validator = Draft202012Validator(schema)
    for name, is_known in (("tiny", True), ("tinny", False), ("Loud", False)):
        assert validator.is_valid({"name": "say", "engine": name, "command": ["x"]}) is is_known
    write(tmp_path, "say", engine="Loud")
    assert "Loud" in run(tmp_path, "validate", ".").stdout
