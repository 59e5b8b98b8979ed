"""`make demo-federation` calls a tool of each worker, whatever the machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run_demo(**environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo_federation.py")],
        env={**os.environ, "COLUMNS": "200", **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_calls_a_tool_of_each_worker_through_the_orchestrator() -> None:
    done = run_demo()
    assert "12 tools of two workers" in done.stdout
    assert "data_summarize_table" in done.stdout
    assert "answered by worker-text" in done.stdout
    assert "answered by worker-data" in done.stdout


@pytest.mark.bubblewrap
def test_without_a_daemon_and_a_registry_its_tools_run_in_an_image_of_its_own_python(tmp_path: Path) -> None:
    done = run_demo(
        PRAXIS_ENGINES__SANDBOX__STORE=str(tmp_path),
        PRAXIS_ENGINES__ORDER='["docker", "sandbox"]',
        PRAXIS_PULL="never",
        DOCKER_HOST="unix:///nowhere/docker.sock",
    )
    assert "praxis-mcp image from-host localhost/praxis-demo-python:" in done.stdout
    assert '"words": 14' in done.stdout
    assert "18446744073709551615" in done.stdout
    assert "not on this machine" not in done.stdout
