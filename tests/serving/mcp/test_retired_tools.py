"""What waits for calls of a tool goes with the contract that it was made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.engines.docker.warm import DockerKey, WarmContainer
from praxis_mcp.engines.warm.pool import WarmPool
from praxis_mcp.execution.toolbox import Toolbox
from tests.engines.docker.bench import BUSYBOX
from tests.kit.contracts import write_contract
from tests.kit.until import until
from tests.serving.clients import LIMIT, open_server, settings_for

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.native]


def write(directory: Path, name: str, **fields: Any) -> Path:
    return write_contract(directory, name, **{"engine": "docker", "image": BUSYBOX, "command": ["true"], **fields})


def pool_of(toolbox: Toolbox) -> WarmPool[DockerKey, WarmContainer]:
    engine = toolbox.engines.get("docker")
    assert isinstance(engine, DockerSDKExecutionEngine)
    assert engine._warm is not None
    return engine._warm.pool


@pytest.mark.parametrize("fate", ["changed", "removed"])
async def test_no_container_waits_for_a_contract_that_is_no_more(tmp_path: Path, fate: str) -> None:
    mounted, kept = write(tmp_path, "mounted", mounts={str(tmp_path): "/data"}), "kept"
    write(tmp_path, kept)
    async with open_server(settings_for(tmp_path)) as (toolbox, _):
        await toolbox.loaded()
        for name in ("mounted", kept):
            with anyio.fail_after(LIMIT):
                assert (await toolbox.runner.call(name, {})).success
        pool = pool_of(toolbox)

        def waiting() -> list[str]:
            return sorted(item.place.key.blueprint.tool for item in pool.waiting)

        await until(lambda: waiting() == [kept, "mounted"])
        if fate == "changed":
            write(tmp_path, "mounted")
        else:
            mounted.unlink()
        await until(lambda: waiting() == [kept])


@pytest.mark.parametrize("fate", ["changed", "removed"])
async def test_none_is_made_for_a_call_that_waited_while_its_contract_was_changed(tmp_path: Path, fate: str) -> None:
    """It runs by the contract that it was checked against, and leaves nothing for a next one."""
    shared = tmp_path / ".shared"
    shared.mkdir()
    script = "touch /data/begun; until [ -e /data/go ]; do sleep 0.02; done"
    old = {
        "max_concurrency": 1,
        "timeout": LIMIT,
        "command": ["sh", "-c", script],
        "mounts": {str(shared): "/data:rw"},
    }
    contract = write(tmp_path, "tool", **old)
    done: list[bool] = []
    async with open_server(settings_for(tmp_path)) as (toolbox, _):
        await toolbox.loaded()

        async def call() -> None:
            done.append((await toolbox.runner.call("tool", {})).success)

        with anyio.fail_after(2 * LIMIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await until(lambda: (shared / "begun").exists())
                tasks.start_soon(call)
                await until(lambda: toolbox.runner.admission.waiting == 1)
                before = toolbox.catalog.get("tool")
                if fate == "changed":
                    write(tmp_path, "tool")
                    await until(lambda: toolbox.catalog.get("tool") is not before)
                else:
                    contract.unlink()
                    await until(lambda: not toolbox.catalog.entries())
                (shared / "go").touch()
        assert done == [True, True]
        assert not pool_of(toolbox)._shelves
        if fate == "changed":
            assert (await toolbox.runner.call("tool", {})).success
            await until(lambda: [item.place.key.blueprint.mounts for item in pool_of(toolbox).waiting] == [()])
