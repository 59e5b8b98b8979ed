"""What is left where a server, or the way to its pods, is lost in the middle of a call: nothing that runs, and soon
nothing at all."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.build import build_plan
from tests.cluster.cluster import Cluster, running_cluster
from tests.cluster.objects import namespace
from tests.engines.kubernetes.servers import engine_for, hello, leases, let_expire, pods, that_run, victim
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes, pytest.mark.native, pytest.mark.timeout(600)]


async def test_another_server_removes_all_that_a_killed_one_left(kubernetes_cluster: Cluster, tmp_path: Path) -> None:
    with kubernetes_cluster.api() as api, namespace(api) as where:
        async with victim(kubernetes_cluster, where, calls=1, waiting=1) as killed:
            assert await killed.says() == "ready"
            assert len(that_run(api, where)) >= 2, "one in a call, and one that waits"
        await until(lambda: not that_run(api, where), every=0.1)
        (lease,) = leases(api, where)
        async with engine_for(kubernetes_cluster, where, tmp_path) as other:
            assert (await other.execute(hello(kubernetes_cluster), {})).output == "hello\n"
            assert await other.reap() == ()  # it may be renewed yet
            let_expire(api, where, lease)
            name = lease["metadata"]["name"]

            async def is_removed() -> bool:
                await other.reap()  # or its own reaper was first
                return name not in [each["metadata"]["name"] for each in leases(api, where)]

            await until(is_removed, every=0.2)
            assert len(leases(api, where)) == 1, "its own"
            server = lease["metadata"]["labels"]["praxis-mcp/server"]
            await until(lambda: server not in str(pods(api, where)), every=0.1)


@pytest.mark.parametrize("how", ["evicted", "removed"])
async def test_a_call_whose_pod_is_taken_from_it_fails_as_one_that_may_have_run(
    kubernetes_cluster: Cluster, tmp_path: Path, how: str
) -> None:
    image = kubernetes_cluster.load_stand_in("busybox:latest")
    slow = ToolContract.create_dagger_tool(
        "slow", image, ["sh", "-c", "trap '' TERM; echo begun; sleep 1000"], timeout=600.0
    )
    with kubernetes_cluster.api() as api, namespace(api) as where:

        def take(_: str, data: bytes) -> None:
            for name in that_run(api, where):
                path = f"/api/v1/namespaces/{where}/pods/{name}"
                if how == "evicted":
                    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
                    api.post(f"{path}/eviction", body)
                else:
                    api.delete(path, gracePeriodSeconds="5")

        async with engine_for(kubernetes_cluster, where, tmp_path, warm={"enabled": False}) as engine:
            with pytest.raises(ExecutionError, match=f"its pod was {how} before the call ended .* It may have run"):
                await engine.run(build_plan(slow, {}, engine.settings), ExecutionContext(on_output=take))
        await until(lambda: not pods(api, where), every=0.1)


async def test_a_call_whose_channel_breaks_fails_as_one_that_may_have_run_and_is_not_repeated(tmp_path: Path) -> None:
    with running_cluster() as cluster, cluster.api() as api, namespace(api) as where:
        image = cluster.load_stand_in("busybox:1.36")
        contract = ToolContract.create_dagger_tool(
            "slow", image, ["sh", "-c", "echo begun; exec sleep 1000"], timeout=600.0
        )
        said = bytearray()
        names: list[str] = []

        def listen(_: str, data: bytes) -> None:
            said.extend(data)
            if said.endswith(b"begun\n"):
                names.extend(that_run(api, where))
                cluster.kill_apiserver()

        async with engine_for(cluster, where, tmp_path, warm={"enabled": False}) as engine:
            with pytest.raises(ExecutionError, match="It may have run"):
                await engine.run(build_plan(contract, {}, engine.settings), ExecutionContext(on_output=listen))
            await anyio.to_thread.run_sync(cluster.start_apiserver)
            await until(lambda: not that_run(api, where), every=0.1)
            assert said == b"begun\n"
            assert {pod["metadata"]["name"] for pod in pods(api, where)} <= set(names)
            assert len(names) == 1
            await until(lambda: not pods(api, where), every=0.1)
