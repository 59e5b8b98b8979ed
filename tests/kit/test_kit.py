"""The helpers that decide whether a test runs are tests' own ground: here they are tested themselves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import images, requirements
from tests.kit.command_line import praxis
from tests.kit.node import NodeProgram


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "missing", lambda name: f"no {name} here")


@pytest.mark.usefixtures("nothing_here")
def test_a_missing_requirement_skips_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(requirements.VARIABLE, "node")
    with pytest.raises(pytest.skip.Exception, match="no docker here"):
        requirements.require("docker")


@pytest.mark.usefixtures("nothing_here")
def test_a_missing_requirement_that_is_demanded_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(requirements.VARIABLE, "node, docker")
    with pytest.raises(pytest.fail.Exception, match="demands docker: no docker here"):
        requirements.require("docker")


def test_a_misspelt_demand_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(requirements.VARIABLE, "dokcer")
    with pytest.raises(pytest.UsageError, match="dokcer"):
        requirements.demanded()


@pytest.mark.usefixtures("nothing_here")
def test_a_machine_may_be_wanted_without_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(requirements.VARIABLE_OF_ABSENCE, "docker,bubblewrap")
    requirements.check_absence()
    monkeypatch.setattr(requirements, "missing", lambda name: None if name == "bubblewrap" else "not here")
    with pytest.raises(pytest.UsageError, match="without bubblewrap, and there is one"):
        requirements.check_absence()


def test_the_summary_says_what_was_missing_for_the_tests_that_were_skipped() -> None:
    no_docker = "Skipped: docker: docker is not on the PATH"
    assert requirements.skipped_for([no_docker, "Skipped: needs root", no_docker, "Skipped: node: too old"]) == [
        "docker: 2 tests (docker is not on the PATH)",
        "node: 1 test (too old)",
        "anything else: 1 test",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_engines_can_be_hidden_from_a_command() -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "without-engines.sh"
    source = (
        "import os, shutil, stat; "
        "print([name for name in ('docker', 'podman', 'bwrap', 'dagger') if shutil.which(name)], "
        "[name for name in os.environ if name.startswith(('DOCKER_HOST', '_EXPERIMENTAL_DAGGER'))], "
        "os.path.exists('/run/docker.sock') and stat.S_ISSOCK(os.stat('/run/docker.sock').st_mode))"
    )
    done = subprocess.run(
        [script, sys.executable, "-c", source],
        env={**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:1", "_EXPERIMENTAL_DAGGER_CLI_BIN": "/bin/true"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this user may make no mount namespace")
    assert (done.stdout, done.returncode) == ("[] [] False\n", 0), done.stderr


def test_every_requirement_has_its_marker(pytestconfig: pytest.Config) -> None:
    markers = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert requirements.CHECKS.keys() <= markers


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
def test_a_dynamic_program_is_not_taken_for_a_static_one() -> None:
    assert not images.is_static(Path(sys.executable).resolve())
    assert not images.is_static(Path(__file__))


@pytest.mark.docker
def test_the_busybox_image_runs_as_root_or_nobody(stand_in_images: dict[str, str]) -> None:
    run = ("docker", "run", "--rm", "--network", "none", "--user", "nobody", stand_in_images["busybox:1.36"])
    assert (
        subprocess.run([*run, "sh", "-c", "whoami; touch /tmp/x"], capture_output=True, check=True).stdout
        == b"nobody\n"
    )


@pytest.mark.docker
def test_the_python_image_has_the_standard_library() -> None:
    modules = "json, csv, unicodedata, decimal, zlib, statistics, sqlite3, ssl, ctypes"
    run = ("docker", "run", "--rm", "--network", "none", "python:3.11-slim")
    for python in ("python", "python3"):
        done = subprocess.run([*run, python, "-c", f"import {modules}"], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.docker
def test_the_tool_image_has_no_shell() -> None:
    run = ("docker", "run", "--rm", "--network", "none", "-i", "--env", "text=x", "scratch-tool:latest")
    done = subprocess.run(
        [*run, "/tool", "a", "b c", "--env", "text", "--stdin", "--exit", "3"], input=b"in\n", capture_output=True
    )
    assert (done.returncode, done.stdout) == (3, b"a b c\nx\nin\n")
    assert subprocess.run([*run, "/bin/sh", "-c", "true"], capture_output=True, check=False).returncode == 127


def test_a_command_that_is_forked_is_like_one_that_is_started(tmp_path: Path) -> None:
    environment = {**os.environ, "COLUMNS": "70", "PRAXIS_PULL": "sometimes"}
    for words, stdin in (("--help", ""), ("no-such", ""), ("list", ""), ("call x --arguments @-", "[")):
        started = subprocess.run(
            [Path(sys.executable).with_name("praxis-mcp"), *words.split()],
            cwd=tmp_path, env=environment, input=stdin, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        forked = praxis(*words.split(), cwd=tmp_path, env=environment, stdin=stdin)
        assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout)
        assert forked.stderr == started.stderr


def test_a_forked_command_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    (tmp_path / "wait.contract.yaml").write_text(
        "name: wait\ndescription: Waits.\nengine: local\ncommand: [/bin/sleep, '60']\ntimeout: 60\n"
    )
    with pytest.raises(subprocess.TimeoutExpired):
        praxis("call", "--tools", ".", "wait", cwd=tmp_path, env=environment, timeout=0.5)
    assert praxis("--version", cwd=tmp_path).returncode == 0


@pytest.mark.node
def test_the_inspector_runs(mcp_inspector: NodeProgram) -> None:
    done = mcp_inspector.run("--help")
    assert done.returncode == 0, done.stderr
    assert "--tool-name" in done.stdout
