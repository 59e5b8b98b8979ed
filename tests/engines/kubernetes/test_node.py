"""A node that is gone, as when its power is cut: the call there fails in bounded time as one that may have run, others
go on elsewhere, and nothing is left when the cluster has given the node up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.kubernetes.channel import CHANNEL_CLOSE_TIMEOUT
from praxis_mcp.engines.kubernetes.client import PING_EVERY, PING_TIMEOUT
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.engines.kubernetes.pods import POD_REMOVE_TIMEOUT
from praxis_mcp.engines.kubernetes.warm import POD_END_TIMEOUT
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from tests.cluster.cluster import running_cluster
from tests.cluster.node import Node
from tests.cluster.objects import namespace
from tests.engines.kubernetes.case import START_WITHIN
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes, pytest.mark.native, pytest.mark.timeout(900)]

KNOWN_WITHIN = PING_EVERY + PING_TIMEOUT + POD_END_TIMEOUT + POD_REMOVE_TIMEOUT + 2 * CHANNEL_CLOSE_TIMEOUT
"""Seconds within which a call on a node that is gone has failed, but for the load of the machine."""
COLLECTED_WITHIN = 300.0
"""Seconds within which the cluster removes the pods of a node that was removed; it looks every 20, and twice."""


async def test_a_call_on_a_node_that_is_gone_fails_in_time_and_is_not_repeated(tmp_path: Path) -> None:
    with running_cluster(nodes=2) as cluster, cluster.api() as api, namespace(api) as where:
        image = cluster.load_stand_in("busybox:1.36")
        options: Any = {
            "kubernetes": {"kubeconfig": cluster.kubeconfig, "namespace": where, "start_timeout": START_WITHIN},
        }
        settings = Settings(root=tmp_path, engines=options, warm={"enabled": False})  # pyright: ignore[reportArgumentType]
        slow = ToolContract.create_dagger_tool(
            "slow", image, ["sh", "-c", "echo begun; exec sleep 1000"], timeout=1000.0
        )
        hello = ToolContract.create_dagger_tool("hello", image, ["echo", "hello"])
        pods = f"/api/v1/namespaces/{where}/pods"
        begun = anyio.Event()
        said: list[bytes] = []
        failures: list[tuple[float, ExecutionError]] = []
        gone: list[Node] = []
        killed = 0.0

        def listen(_: str, data: bytes) -> None:
            said.append(data)
            begun.set()

        async def fail() -> None:
            with pytest.raises(ExecutionError) as caught:
                await engine.run(build_plan(slow, {}, settings), ExecutionContext(on_output=listen))
            failures.append((time.monotonic() - killed, caught.value))

        async with KubernetesExecutionEngine(settings) as engine:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
                with anyio.fail_after(START_WITHIN):
                    await begun.wait()
                (pod,) = api.get(pods)["items"]
                gone += [each for each in cluster.nodes if each.name == pod["spec"]["nodeName"]]
                killed = time.monotonic()
                await anyio.to_thread.run_sync(gone[0].kill)
            ((took, failure),) = failures
            name = gone[0].name
            assert "It may have run" in failure.message
            assert took < 2 * KNOWN_WITHIN
            assert b"".join(said) == b"begun\n"
            assert len(api.get(pods)["items"]) == 1
            # What keeps new pods away from it; the cluster itself takes 40 s to notice.
            api.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
            assert (await engine.execute(hello, {})).output == "hello\n"
            api.delete(f"/api/v1/nodes/{name}")
            await until(lambda: not api.get(pods)["items"], within=COLLECTED_WITHIN, every=0.5)
