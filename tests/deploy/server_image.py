"""The image of the server as tests use it: built once for what it is made of, without an index, over the stand-in of
its base."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.kit import requirements
from tests.kit.cache import exclusive
from tests.kit.environments import PackageUnavailable, python_with

ROOT = Path(__file__).parents[2]
NAME = "praxis-mcp-tests"
BASE = "python:3.11-slim"
_BUILDER = "hatchling==1.27.0"
_EXTRAS = "postgres,console,kubernetes"
_KEPT = timedelta(days=2)
"""For which an image stays that another checkout may be using."""


def run(*command: str, cwd: Path | None = None, timeout: float = 900) -> str:
    """What a command prints, which has to succeed."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}  # the builder that every Docker has
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, f"{' '.join(command[:4])}…\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout.strip()


def facts(kind: str, name: str) -> Any:
    """What Docker knows of an image or a container."""
    return json.loads(run("docker", kind, "inspect", name))[0]


@functools.cache
def server_image() -> str:
    """Its reference. For tests marked docker, whose stand-in images are there."""
    reference = f"{NAME}:{_key()}"
    with exclusive("server-image"):
        if run("docker", "images", "--quiet", reference):
            return reference
        _remove_old()
        with tempfile.TemporaryDirectory(prefix="praxis-image-") as place:
            _build(Path(place), reference)
    return reference


def _build(context: Path, reference: str) -> None:
    wheels = context / "dist"
    wheels.mkdir()
    (context / ".dockerignore").write_bytes((ROOT / ".dockerignore").read_bytes())
    (context / "secret").write_text("not for the image")
    try:
        pip = (str(python_with(_BUILDER)), "-m", "pip", "--quiet", "--disable-pip-version-check")
    except PackageUnavailable as exc:
        requirements.give_up("docker", str(exc))
        raise
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    (wheel,) = wheels.iterdir()
    download = ("download", "--only-binary=:all:", "--python-version", "3.11", "--dest", str(wheels))
    run(*pip, *download, f"{wheel}[{_EXTRAS}]", "pip")
    arguments = ("--build-arg", f"EXTRAS={_EXTRAS}", "--network", "none", "--pull=false", "--quiet")
    build = ("docker", "build", *arguments, "--file", str(ROOT / "deploy/Dockerfile"), str(context))
    stage = run(*build, "--target", "build").splitlines()[-1]  # named, so that it can be removed
    run(*build, "--tag", reference)
    run("docker", "rmi", "--force", stage)


def _key() -> str:
    files = [ROOT / "deploy/Dockerfile", ROOT / ".dockerignore", ROOT / "pyproject.toml"]
    files += sorted(
        file for file in (ROOT / "praxis_mcp").rglob("*") if file.is_file() and "__pycache__" not in str(file)
    )
    digest = hashlib.sha256(facts("image", BASE)["Id"].encode())
    for file in files:
        digest.update(f"{file.relative_to(ROOT)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _remove_old() -> None:
    oldest = datetime.now(UTC) - _KEPT
    for reference in run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}", NAME).splitlines():
        if datetime.fromisoformat(facts("image", reference)["Created"][:19] + "+00:00") < oldest:
            subprocess.run(["docker", "rmi", reference], capture_output=True, check=False)
