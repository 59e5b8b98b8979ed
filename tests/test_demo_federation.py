"""`make demo-federation` calls a tool of each worker, whatever the machine has."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_it_calls_a_tool_of_each_worker_through_the_orchestrator() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo_federation.py")],
        env={**os.environ, "COLUMNS": "200"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 tools of two workers" in done.stdout
    assert "data_summarize_table" in done.stdout
    assert "answered by worker-text" in done.stdout
    assert "answered by worker-data" in done.stdout
