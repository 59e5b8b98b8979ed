"""The image of the server: built of a wheel without an index, it serves with a read-only root as nobody whom its host
knows, and ends when it is asked to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import anyio.to_thread
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from praxis_mcp.serving.access import hash_token
from tests.deploy.server_image import BASE, facts, run, server_image
from tests.kit.contracts import write_tool
from tests.kit.until import until, until_blocking
from tests.serving.clients import LIMIT, text_of
from tests.serving.http_server import http_client

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]

TOKEN = "praxis_of_the_image"
MOST_BYTES = 200 * 1024 * 1024
"""That the image may take beyond its base."""


@pytest.fixture
def image(stand_in_images: dict[str, str]) -> str:
    return server_image()


def test_it_is_small_and_its_user_is_a_number_and_not_root(image: str) -> None:
    found, base = facts("image", image), facts("image", BASE)
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

    def is_ready() -> bool:
        command = ["docker", "exec", name, "praxis-mcp", "health", "--ready"]
        return subprocess.run(command, capture_output=True, check=False, timeout=LIMIT).returncode == 0

    try:
        port = facts("container", name)["NetworkSettings"]["Ports"]["8000/tcp"][0]["HostPort"]
        await anyio.to_thread.run_sync(lambda: until_blocking(is_ready, every=0.5))
        async with http_client(TOKEN) as http:
            line = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
            async with Client(line, read_timeout_seconds=LIMIT) as client:
                result = await client.call_tool("whoami", {})
        user, touched, looked = text_of(result).splitlines()[:3]
        assert user == "65532"
        assert "Read-only file system" in touched
        assert "No such file" in looked
        run("docker", "kill", "--signal", "TERM", name)
        await until(lambda: not facts("container", name)["State"]["Running"], every=0.2)
        assert facts("container", name)["State"]["ExitCode"] == 0
        said = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True).stderr
        assert "Listening on" in said
        assert "cannot be removed" not in said, "control groups can be read only there"
    finally:
        run("docker", "rm", "--force", "--volumes", name)
