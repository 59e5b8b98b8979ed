"""How many connections a process can afford."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")


@pytest.mark.parametrize(("files", "most"), [(4096, 1024), (1024, 768), (256, 128), (64, 32), (16, 8)])
def test_a_process_with_few_files_serves_with_half_of_them(files: int, most: int) -> None:
    """256 files are what a shell on macOS gives: one connection would be left of them otherwise."""
    script = (
        "import resource\n"
        "from praxis_mcp.serving.http.web_server import affordable\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n"
        "print(affordable(1024))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{most}\n"
