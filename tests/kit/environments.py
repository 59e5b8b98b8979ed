"""Packages in environments of their own, because they would not fit into ours: installed once a machine."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kit.cache import cache_dir, exclusive

INSTALL_TIMEOUT = 300.0


class PackageUnavailable(Exception):
    """It could not be installed; the message says why."""


@functools.cache
def python_with(package: str) -> Path:
    """A Python that has `package`, ``NAME==VERSION``.

    Raises:
        PackageUnavailable: it cannot be installed.
    """
    name = package.partition("==")[0].partition("[")[0]
    place = cache_dir() / f"{package.replace('==', '-')}-py{sys.version_info.major}.{sys.version_info.minor}"
    program = place / "bin" / "python"
    if (place / ".complete").exists():
        return program
    with exclusive(name):
        if (place / ".complete").exists():
            return program
        shutil.rmtree(place, ignore_errors=True)  # what an interrupted install left
        for command in (
            [sys.executable, "-m", "venv", str(place)],
            [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package],
        ):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
            except subprocess.TimeoutExpired as exc:
                raise PackageUnavailable(f"installing {package} took over {INSTALL_TIMEOUT:.0f} s") from exc
            if done.returncode != 0:
                raise PackageUnavailable(f"{package} could not be installed: {done.stderr.strip()[-500:]}")
        (place / ".complete").touch()
    return program
