"""How long it takes to set praxis-mcp up where nothing of it is: `make demo` in a copy of the last commit, and the
wheel as a tool of uv.

Neither finds an environment, a cache of packages or an image of ours; the registries must be near.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300.0
"""Seconds after which a step is killed."""
REGISTRY_LIMIT = 30.0
"""Seconds for the registry of packages to answer."""
SMALL = "idna"
"""A package that is asked for to see whether it does."""


class NotHere(Exception):
    """This machine cannot tell; says why."""


def demo() -> float:
    """Seconds of `make demo`.

    Raises:
        NotHere: make or git is missing, or the registry does not answer.
        SetupFailed: it failed.
    """
    with _nothing("make", "git") as (place, env):
        _run(["git", "-C", str(ROOT), "archive", "--output", str(place / "tree.tar"), "HEAD"], env)
        with tarfile.open(place / "tree.tar") as archive:
            archive.extractall(place / "tree", filter="data")
        return _run(["make", "-C", str(place / "tree"), "demo"], env)


def tool() -> float:
    """Seconds of `uv tool install` with the release wheel: the one in ``dist/``, or else one that is built first.

    Raises:
        NotHere: uv is missing, or the registry does not answer.
        SetupFailed: it failed, or what it installed does not run.
    """
    with _nothing("uv") as (place, env):
        wheels = sorted((ROOT / "dist").glob("praxis_mcp-*.whl"))
        if not wheels:
            _run([str(ROOT / "scripts/build-release.sh"), str(place / "dist")], env)
            wheels = sorted((place / "dist").glob("praxis_mcp-*.whl"))
        seconds = _run(["uv", "tool", "install", "--quiet", str(wheels[-1])], env)
        _run([str(place / "bin/praxis-mcp"), "--version"], env)
        return seconds


class SetupFailed(Exception):
    """A step failed; says which, and its last line."""


@contextmanager
def _nothing(*programs: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """An empty place, and an environment in which nothing is found outside of it but these programs."""
    for program in programs:
        if shutil.which(program) is None:
            raise NotHere(f"no {program}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        env = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
        env |= {
            "PIP_NO_CACHE_DIR": "1",
            "UV_CACHE_DIR": str(place / "cache"),
            "UV_TOOL_DIR": str(place / "tools"),
            "UV_TOOL_BIN_DIR": str(place / "bin"),
            **{f"XDG_{kind}_HOME": str(place / kind.lower()) for kind in ("CACHE", "DATA", "STATE")},
        }
        ask = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place / "asked"), SMALL]
        try:
            _run(ask, env, REGISTRY_LIMIT)
        except SetupFailed as exc:
            raise NotHere("no registry of packages") from exc
        yield place, env


def _run(words: Sequence[str], env: dict[str, str], limit: float = LIMIT) -> float:
    began = time.perf_counter()
    piped = subprocess.PIPE
    with subprocess.Popen(
        words, env=env, stdin=subprocess.DEVNULL, stdout=piped, stderr=piped, start_new_session=True
    ) as process:
        try:
            output = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired as exc:
            raise SetupFailed(f"{Path(words[0]).name} took longer than {limit:g} s") from exc
        finally:
            with suppress(ProcessLookupError):  # and what it has started
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        lines = b"\n".join(output).decode(errors="replace").strip().splitlines()
        raise SetupFailed(f"{Path(words[0]).name}: {(lines or ['no message'])[-1][:100]}")
    return time.perf_counter() - began
