"""Cache volumes on a Docker daemon are bounded in number."""

import subprocess
import uuid
from pathlib import Path

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker import ownership
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing.bench import CALL_LIMIT

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def test_the_oldest_go_that_no_container_uses_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A label of the test's own, or it would remove the caches of other servers on this daemon.
    label = f"praxis-mcp.test-cache-{uuid.uuid4().hex}"
    monkeypatch.setattr(ownership, "CACHE", label)
    monkeypatch.setattr(ownership, "MAX_CACHE_VOLUMES", 2)
    settings = Settings(root=tmp_path, warm={"enabled": False})  # pyright: ignore[reportArgumentType]

    def volumes() -> set[str]:
        command = ["docker", "volume", "ls", "--quiet", "--filter", f"label={label}"]
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())

    async def call(number: int) -> str:
        contract = ToolContract.create_dagger_tool("tool", "busybox:1.36", ["true"], cache_dirs=[f"/cache{number}"])
        plan = build_plan(contract, {}, settings)
        with anyio.fail_after(CALL_LIMIT):
            assert (await engine.run(plan, ExecutionContext())).success
        return ownership.cache_volume(plan.blueprint, f"/cache{number}")

    try:
        async with DockerSDKExecutionEngine(settings) as engine:
            young = [await call(number) for number in range(3)]
            assert volumes() == set(young), "a call may be about to use a new one"
            monkeypatch.setattr(ownership, "YOUNG", -60.0)
            newest = await call(3)
        assert newest in volumes()
        assert len(volumes()) == 2
    finally:
        for name in volumes():
            subprocess.run(["docker", "volume", "rm", name], capture_output=True, check=False)
