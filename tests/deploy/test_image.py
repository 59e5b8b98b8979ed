"""The image of the server: built of a wheel without an index, it serves with a read-only root as nobody whom its host
knows, and ends when it is asked to."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from praxis_mcp.serving.access import hash_token
from tests.kit import requirements
from tests.kit.contracts import write_tool
from tests.kit.environments import PackageUnavailable, python_with
from tests.kit.until import until, until_blocking
from tests.serving.clients import LIMIT, text_of
from tests.serving.http_server import http_client

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
TOKEN = "praxis_of_the_image"
BUILDER = "hatchling==1.27.0"
MOST_BYTES = 200 * 1024 * 1024
"""That the image may take beyond its base."""


def run(*command: str, cwd: Path | None = None, timeout: float = 900) -> str:
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}  # which is a part of every Docker
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, f"{' '.join(command[:4])}…\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, stand_in_images: dict[str, str]) -> Iterator[str]:
    context = tmp_path_factory.mktemp("image")
    (context / "dist").mkdir()
    (context / ".dockerignore").write_bytes((ROOT / ".dockerignore").read_bytes())
    (context / "secret").write_text("not for the image")
    try:
        pip = (str(python_with(BUILDER)), "-m", "pip", "--quiet", "--disable-pip-version-check")
    except PackageUnavailable as exc:
        requirements.give_up("docker", str(exc))
        raise
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(context / "dist"), str(ROOT))
    (wheel,) = (context / "dist").iterdir()
    download = ("download", "--only-binary=:all:", "--python-version", "3.11", "--dest", str(context / "dist"))
    run(*pip, *download, f"{wheel}[postgres,console]", "pip")
    arguments = ("--build-arg", "EXTRAS=postgres,console", "--network", "none", "--pull=false", "--quiet")
    build = ("docker", "build", *arguments, "--file", str(ROOT / "deploy/Dockerfile"), str(context))
    stage = run(*build, "--target", "build").splitlines()[-1]  # named, so that it can be removed
    made = run(*build).splitlines()[-1]
    yield made
    run("docker", "rmi", "--force", made, stage)


def facts(kind: str, name: str) -> Any:
    return json.loads(run("docker", kind, "inspect", name))[0]


def test_it_is_small_and_its_user_is_a_number_and_not_root(image: str, stand_in_images: dict[str, str]) -> None:
    found, base = facts("image", image), facts("image", stand_in_images["python:3.11-slim"])
    assert found["Config"]["User"] == "65532:65532"
    assert found["Config"]["Healthcheck"]["Test"] == ["CMD", "praxis-mcp", "health"]
    assert found["Size"] - base["Size"] < MOST_BYTES


@pytest.mark.anyio
async def test_it_serves_with_a_read_only_root_and_ends_by_itself(image: str, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    write_tool(tools, "whoami", ["sh", "-c", "id -u; touch /opt/praxis-mcp/x 2>&1; ls -d /secret 2>&1; true"])
    tools.chmod(0o755)
    auth = {"tokens": {"ci": {"sha256": hash_token(TOKEN)}}}
    name = run(
        "docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
        "--tmpfs", "/var/lib/praxis-mcp:uid=65532,mode=0700", "--security-opt", "no-new-privileges",
        "--volume", f"{tools}:/srv/praxis/tools:ro", "--publish", "127.0.0.1::8000",
        "--env", f"PRAXIS_HTTP__AUTH={json.dumps(auth)}", "--env", "PRAXIS_ENGINES__LOCAL__SANDBOX=off", image,
    )  # fmt: skip
    try:
        port = facts("container", name)["NetworkSettings"]["Ports"]["8000/tcp"][0]["HostPort"]

        def is_ready() -> bool:
            done = subprocess.run(["docker", "exec", name, "praxis-mcp", "health", "--ready"], capture_output=True)
            return done.returncode == 0

        await until(is_ready, every=0.5)
        async with http_client(TOKEN) as http:
            line = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
            async with Client(line, read_timeout_seconds=LIMIT) as client:
                result = await client.call_tool("whoami", {})
        user, touched, looked = text_of(result).splitlines()[:3]
        assert user == "65532"
        assert "Read-only file system" in touched
        assert "No such file" in looked
        run("docker", "kill", "--signal", "TERM", name)
        until_blocking(lambda: not facts("container", name)["State"]["Running"])
        assert facts("container", name)["State"]["ExitCode"] == 0
    finally:
        run("docker", "rm", "--force", "--volumes", name)
