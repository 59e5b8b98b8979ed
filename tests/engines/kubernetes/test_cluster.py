"""The engine on a real cluster: what it leaves there, and what it says of too few rights."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.engines.kubernetes.warm import WarmKubernetes
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ImageError
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from tests.cluster.cluster import Cluster
from tests.cluster.objects import account, namespace
from tests.engines.kubernetes.case import engine_settings, objects
from tests.kit import command_line
from tests.kit.contracts import write_contract
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes, pytest.mark.native, pytest.mark.timeout(600)]

KINDS = ("pods", "configmaps", "leases")
AT_ONCE = 16


def settings_with(root: Path, **more: Any) -> Settings:
    options: Any = {"kubernetes": engine_settings(**more)}
    return Settings(root=root, engines=options)


def hello(cluster: Cluster, **fields: Any) -> ToolContract:
    image = fields.pop("image", None) or cluster.load_stand_in("busybox:latest")
    return ToolContract.create_dagger_tool("hello", image, ["echo", "hello"], **fields)


async def test_a_call_meets_a_pod_that_waits_and_nothing_is_left_of_the_engine(
    kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    with kubernetes_cluster.api() as api, namespace(api) as where:
        contract = hello(kubernetes_cluster)
        async with KubernetesExecutionEngine(settings_with(tmp_path, namespace=where)) as engine:
            assert (await engine.execute(contract, {})).output == "hello\n"

            def waiting() -> int:
                metrics = engine.warm()
                return 0 if metrics is None else metrics.waiting

            await until(lambda: waiting() == 1, within=240)
            assert (await engine.execute(contract, {})).output == "hello\n"
            metrics = engine.warm()
            assert metrics is not None
            assert (metrics.hits, metrics.misses) == (1, 1)
            assert {name.partition("/")[0] for name in objects(where, *KINDS)} == set(KINDS)
        await until(lambda: not objects(where, *KINDS), within=60)


class FilledEngine(KubernetesExecutionEngine):
    """Has pods wait without calls before."""

    async def fill(self, contract: ToolContract, count: int) -> None:
        key = WarmKubernetes.key(build_plan(contract, {}, self.settings), ExecutionContext())
        assert key is not None
        pods = await self._connected()
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(pods.pool.fill, key)


async def test_calls_at_once_have_a_waiting_pod_each_and_all_are_answered(
    kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    contract = ToolContract.create_dagger_tool(
        "where", kubernetes_cluster.load_stand_in("busybox:latest"), ["hostname"]
    )
    hosts: list[str] = []

    async def call(engine: KubernetesExecutionEngine) -> None:
        hosts.append((await engine.execute(contract, {})).output)

    with kubernetes_cluster.api() as api, namespace(api) as where:
        async with FilledEngine(settings_with(tmp_path, namespace=where)) as engine:
            await engine.fill(contract, AT_ONCE)
            async with anyio.create_task_group() as tasks:
                for _ in range(AT_ONCE):
                    tasks.start_soon(call, engine)
            metrics = engine.warm()
            assert metrics is not None
            assert (metrics.hits, metrics.misses) == (AT_ONCE, 0)
            assert len({*hosts}) == AT_ONCE
        await until(lambda: not objects(where, *KINDS), within=60)


async def test_what_a_server_may_not_do_is_named_with_the_role_that_lets_it(
    kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    with kubernetes_cluster.api() as api, namespace(api) as where:
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create"]}]
        kubeconfig = account(kubernetes_cluster, api, where, rules)
        settings = settings_with(tmp_path, kubeconfig=kubeconfig, namespace=where)
        async with KubernetesExecutionEngine(settings) as engine:
            status = await engine.probe()
            assert not status.available
            assert "delete pods, create pods/portforward, get pods/portforward" in status.detail
            assert "create pods," not in status.detail
            assert "kind: Role" in status.remedy
            with pytest.raises(EngineUnavailable, match="forbids"):
                await engine.execute(hello(kubernetes_cluster), {})


async def test_an_image_that_no_node_can_have_fails_the_call_at_once(
    kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    settings = settings_with(tmp_path).model_copy(update={"pull": "never"})
    async with KubernetesExecutionEngine(settings) as engine:
        with pytest.raises(ImageError, match="no-such-image"):
            await engine.execute(hello(kubernetes_cluster, image="localhost/no-such-image:1"), {})


async def test_a_pod_that_no_node_takes_fails_the_call_in_time_with_the_schedulers_reason(
    kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    settings = settings_with(tmp_path, node_selector={"no-such": "node"}, start_timeout=5)
    async with KubernetesExecutionEngine(settings) as engine:
        with pytest.raises(ExecutionError, match="no node of the cluster takes its pod"):
            await engine.execute(hello(kubernetes_cluster), {})


async def test_a_runtime_class_that_is_not_there_is_named(kubernetes_cluster: Cluster, tmp_path: Path) -> None:
    async with KubernetesExecutionEngine(settings_with(tmp_path, runtime_class="no-such-class")) as engine:
        with pytest.raises(EngineUnavailable, match="no-such-class"):
            await engine.execute(hello(kubernetes_cluster), {})


def test_runs_diff_shows_what_a_pod_has_changed_in_a_writable_mount(
    kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "edited").write_text("one\ntwo\n")
    (work / "gone").write_text("was\n")
    (work / "same").write_text("same\n")
    for place, mode in ((work, 0o777), (work / "edited", 0o666), (work / "gone", 0o666)):
        place.chmod(mode)
    write_contract(
        tmp_path / "tools",
        "edit",
        engine="kubernetes",
        image=kubernetes_cluster.load_stand_in("busybox:latest"),
        command=["sh", "-c", "cd /work; echo TWO >edited; rm gone; mkdir -p deep; echo made >deep/made"],
        mounts={str(work): "/work:rw"},
    )
    options = {f"PRAXIS_ENGINES__KUBERNETES__{name.upper()}": str(value) for name, value in engine_settings().items()}
    environment = {**os.environ, **options, "XDG_STATE_HOME": str(tmp_path / "state"), "PRAXIS_WARM__ENABLED": "false"}
    praxis = partial(command_line.praxis, cwd=tmp_path, env=environment)
    called = praxis("call", "edit", timeout=300)
    while "did not answer within" in called.stderr:  # a busy machine; nothing has run
        called = praxis("call", "edit", timeout=300)
    assert called.returncode == 0, called.stderr
    assert (work / "edited").read_text() == "TWO\n"
    shown = praxis("runs", "diff", "last").stdout
    assert f"--- {work}/edited\n+++ {work}/edited\n@@ -1,2 +1 @@\n-one\n-two\n+TWO\n" in shown
    assert f"--- {work}/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-was\n" in shown
    assert f"--- /dev/null\n+++ {work}/deep/made\n@@ -0,0 +1 @@\n+made\n" in shown
    assert "same" not in shown
