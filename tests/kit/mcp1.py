"""The MCP SDK of version 1, in an environment of its own, because only one version can be installed in ours."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kit.cache import cache_dir, exclusive

PACKAGE = "mcp==1.26.0"
INSTALL_TIMEOUT = 300.0
SCRIPTS = Path(__file__).parent
"""Where its clients lie. Python puts a script's folder first on its path, so no folder there may be named as a package
that the script imports: below tests/serving lie `mcp` and `http`."""


class Mcp1Unavailable(Exception):
    """It could not be installed; the message says why."""


@functools.cache
def python() -> Path:
    """A Python that imports `mcp` 1.x, installed once a machine."""
    place = cache_dir() / f"{PACKAGE.replace('==', '-')}-py{sys.version_info.major}.{sys.version_info.minor}"
    program = place / "bin" / "python"
    if (place / ".complete").exists():
        return program
    with exclusive("mcp1"):
        if (place / ".complete").exists():
            return program
        shutil.rmtree(place, ignore_errors=True)  # what an interrupted install left
        for command in (
            [sys.executable, "-m", "venv", str(place)],
            [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE],
        ):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
            except subprocess.TimeoutExpired as exc:
                raise Mcp1Unavailable(f"installing {PACKAGE} took over {INSTALL_TIMEOUT:.0f} s") from exc
            if done.returncode != 0:
                raise Mcp1Unavailable(f"{PACKAGE} could not be installed: {done.stderr.strip()[-500:]}")
        (place / ".complete").touch()
    return program
