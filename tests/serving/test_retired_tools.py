"""What waits for calls of a tool goes with the contract that it was made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from praxis_mcp.engines.docker import DockerSDKExecutionEngine
from tests.engines.docker_bench import BUSYBOX
from tests.serving.clients import LIMIT, open_server, settings_for

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.native]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(LIMIT):
        while not condition():
            await anyio.sleep(0.02)


@pytest.mark.parametrize("fate", ["changed", "removed"])
async def test_no_container_waits_for_a_contract_that_is_no_more(tmp_path: Path, fate: str) -> None:
    def write(name: str, **fields: object) -> Path:
        contract = {"name": name, "engine": "docker", "image": BUSYBOX, "command": ["true"], **fields}
        file = tmp_path / name / "contract.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(contract))
        return file

    mounted, kept = write("mounted", mounts={str(tmp_path): "/data"}), "kept"
    write(kept)
    async with open_server(settings_for(tmp_path)) as (toolbox, _):
        await toolbox.loaded()
        for name in ("mounted", kept):
            with anyio.fail_after(LIMIT):
                assert (await toolbox.runner.call(name, {})).success
        engine = toolbox.engines.get("docker")
        assert isinstance(engine, DockerSDKExecutionEngine)
        warm = engine._warm
        assert warm is not None

        def waiting() -> list[str]:
            return sorted(item.place.key.blueprint.tool for item in warm.pool.waiting)

        await until(lambda: waiting() == [kept, "mounted"])
        if fate == "changed":
            write("mounted")
        else:
            mounted.unlink()
        await until(lambda: waiting() == [kept])
