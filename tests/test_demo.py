"""`make demo` shows a call that succeeded, whatever the machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 180.0


def run_demo(*tools: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py"), *map(str, tools)],
        env={**os.environ, "COLUMNS": "200", **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.docker
def test_it_calls_a_tool_in_a_container_and_says_which_engine_ran_it() -> None:
    done = run_demo(PRAXIS_ENGINES__ORDER='["docker"]')
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"words": 14' in done.stdout
    assert "ran on docker (isolation: container" in done.stdout
    assert "why docker: the first" in done.stdout
    assert "second call" in done.stdout
    assert "praxis-mcp install claude-code --tools tools" in done.stdout


def test_without_a_container_engine_and_a_sandbox_it_calls_a_tool_on_the_host_and_says_why() -> None:
    done = run_demo(
        DOCKER_HOST="unix:///nowhere/docker.sock",
        PRAXIS_ENGINES__ORDER='["docker"]',
        PRAXIS_ENGINES__LOCAL__SANDBOX="off",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not on this machine: No engine is available to run word_counter (docker: " in done.stdout
    assert "ran on local (isolation: process)" in done.stdout
    assert "praxis-mcp install claude-code" in done.stdout


@pytest.mark.docker
@pytest.mark.bubblewrap
def test_without_a_daemon_it_calls_a_tool_in_an_image_all_the_same(tmp_path: Path) -> None:
    store = {"PRAXIS_ENGINES__SANDBOX__STORE": str(tmp_path)}
    archive = tmp_path / "python.tar"
    subprocess.run(["docker", "save", "python:3.11-slim", "-o", str(archive)], check=True)
    command = [sys.executable, "-m", "praxis_mcp", "image", "import", str(archive)]
    subprocess.run(command, env={**os.environ, **store}, check=True, capture_output=True)
    nowhere = {"DOCKER_HOST": "unix:///nowhere/docker.sock", "PRAXIS_ENGINES__ORDER": '["docker", "sandbox"]'}
    done = run_demo(**store, **nowhere, PRAXIS_PULL="never")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"words": 14' in done.stdout
    assert "ran on sandbox (isolation: praxis-init)" in done.stdout


@pytest.mark.bubblewrap
def test_without_a_daemon_and_a_registry_it_calls_a_tool_in_an_image_of_its_own_python(tmp_path: Path) -> None:
    store = {"PRAXIS_ENGINES__SANDBOX__STORE": str(tmp_path)}
    nowhere = {"DOCKER_HOST": "unix:///nowhere/docker.sock", "PRAXIS_ENGINES__ORDER": '["docker", "sandbox"]'}
    done = run_demo(**store, **nowhere, PRAXIS_PULL="never")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "praxis-mcp image from-host localhost/praxis-demo-python:" in done.stdout
    assert '"words": 14' in done.stdout
    assert "ran on sandbox (isolation: praxis-init)" in done.stdout
    assert "--tools tools\n" in done.stdout, "not the copy that is gone by now"


@pytest.mark.docker
def test_with_an_engine_that_lacks_the_image_it_still_succeeds(tmp_path: Path) -> None:
    """The engine is there, the image is not and may not be pulled: as on a machine without a network."""
    done = run_demo(without_image(tmp_path), PRAXIS_PULL="never")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ran on local" in done.stdout


def without_image(directory: Path) -> Path:
    for name in ("word_counter", "hash_text", "system_info"):
        copy = directory / name
        copy.mkdir()
        for file in (ROOT / "tools" / name).iterdir():
            text = file.read_text().replace("image: python:3.11-slim", "image: localhost:1/not-there:1")
            (copy / file.name).write_text(text)
    return directory


def test_where_no_tool_can_be_called_it_fails_and_shows_the_log(tmp_path: Path) -> None:
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "No tool could be called." in done.stdout
