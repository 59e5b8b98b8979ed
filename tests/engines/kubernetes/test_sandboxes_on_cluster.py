"""Pods that agent-sandbox makes, on a real cluster: its API server keeps what it knows of the definitions' fields,
fills in what pods lack, and its garbage collector removes what nobody owns any more. The controller is one of ours."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.engines.kubernetes.rights import SANDBOX_RIGHTS, needed_rights, role
from praxis_mcp.settings.kubernetes import KubernetesSettings
from praxis_mcp.settings.model import Settings
from tests.agent_sandbox import FakeController, install
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.objects import account, namespace
from tests.engines.kubernetes.case import engine_settings
from tests.engines.kubernetes.servers import that_run, victim
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes, pytest.mark.native, pytest.mark.timeout(900)]

EXTENSIONS = "apis/extensions.agents.x-k8s.io/v1beta1"
GONE_WITHIN = 180.0
"""Seconds for the garbage collector, which learns of new definitions every half minute."""
WAITING_WITHIN = 240.0


def items(api: Api, where: str, group: str, kind: str) -> list[dict[str, Any]]:
    return api.get(f"/{group}/namespaces/{where}/{kind}")["items"]


def everything(api: Api, where: str) -> list[str]:
    """What there is of agent-sandbox and of pods."""
    kinds = [(EXTENSIONS, kind) for kind in ("sandboxclaims", "sandboxtemplates", "sandboxwarmpools")]
    kinds += [("apis/agents.x-k8s.io/v1beta1", "sandboxes"), ("api/v1", "pods")]
    return [f"{kind}/{item['metadata']['name']}" for group, kind in kinds for item in items(api, where, group, kind)]


@pytest.mark.parametrize("choice", ["auto", "require"])
async def test_calls_run_in_claimed_pods_with_the_rights_that_doctor_names_and_nothing_is_left(
    kubernetes_cluster: Cluster, tmp_path: Path, choice: str
) -> None:
    with kubernetes_cluster.api() as api, namespace(api) as where:
        install(api)
        options = KubernetesSettings.model_validate({"agent_sandbox": choice})
        rights = dict.fromkeys([*needed_rights(options), *SANDBOX_RIGHTS])
        rules = yaml.safe_load(role(where, list(rights)))["rules"]
        kubeconfig = account(kubernetes_cluster, api, where, rules)
        engine_options: Any = {
            "kubernetes": engine_settings(kubeconfig=kubeconfig, namespace=where, agent_sandbox=choice)
        }
        contract = ToolContract.create_dagger_tool(
            "hello",
            kubernetes_cluster.load_stand_in("busybox:latest"),
            ["sh", "-c", "cat /data/word"],
            memory_limit="64m",
            cpu_limit=0.5,
            mounts={str(tmp_path / "data"): "/data:ro"},
        )
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "word").write_text("hello\n")
        settings = Settings(root=tmp_path, engines=engine_options)
        async with (
            FakeController(kubernetes_cluster.kubeconfig, where),
            KubernetesExecutionEngine(settings) as engine,
        ):
            status = await engine.probe()
            assert status.available, status.detail
            assert "agent-sandbox makes the pods" in status.detail

            def waiting() -> int:
                metrics = engine.warm()
                return 0 if metrics is None else metrics.waiting

            assert (await engine.execute(contract, {})).output == "hello\n"
            await until(lambda: waiting() == 1, within=WAITING_WITHIN)
            assert "plain pods" not in (await engine.probe()).detail, "what the cluster fills in does not matter"
            assert (await engine.execute(contract, {})).output == "hello\n"
            metrics = engine.warm()
            assert metrics is not None
            assert metrics.hits == 1

            (pool,) = items(api, where, EXTENSIONS, "sandboxwarmpools")
            assert pool["spec"]["replicas"] == 2
            claims = items(api, where, EXTENSIONS, "sandboxclaims")
            assert {claim["spec"]["lifecycle"]["shutdownPolicy"] for claim in claims} == {"Delete"}
            assert all(datetime.fromisoformat(claim["spec"]["lifecycle"]["shutdownTime"]) for claim in claims)
        await until(lambda: not everything(api, where), within=GONE_WITHIN, every=0.5)


async def test_of_a_killed_server_no_other_has_to_remove_anything_of_agent_sandbox(kubernetes_cluster: Cluster) -> None:
    with kubernetes_cluster.api() as api, namespace(api) as where:
        install(api)
        async with (
            FakeController(kubernetes_cluster.kubeconfig, where) as controller,
            victim(kubernetes_cluster, where, calls=1, waiting=1, agent_sandbox="require", hold_for=40) as server,
        ):
            assert await server.says() == "ready"
            claimed = {item["status"]["sandbox"]["name"] for item in items(api, where, EXTENSIONS, "sandboxclaims")
                       if item.get("status", {}).get("sandbox")}  # fmt: skip
            assert len(claimed) >= 2
            server.process.kill()
            await until(lambda: not claimed & {*that_run(api, where)}, what="the end of what had a connection")
            await until(lambda: not everything(api, where), within=GONE_WITHIN, every=0.5)
            assert controller.claims
