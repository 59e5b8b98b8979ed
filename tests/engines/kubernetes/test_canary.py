"""Nothing of a call is where others can read it: not in an object of the API, whatever its kind, not in an event, a
pod's log, or what the cluster's programs write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.plans.build import build_plan
from praxis_mcp.plans.model import CallFile, Plan
from praxis_mcp.settings.base import SecretRef
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import WarmSettings
from tests.cluster.api import Api, ApiError
from tests.cluster.cluster import Cluster
from tests.cluster.objects import namespace
from tests.engines.kubernetes.case import engine_settings
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes, pytest.mark.native, pytest.mark.timeout(600)]

SCRIPT = 'cat; cat /tmp/in; echo "$1 $WORD"; echo "$TOKEN" | md5sum; echo .; sleep 600'
"""The secret itself is masked in the output. What could be its beginning is held back, hence the last line."""


def objects_of_all_kinds(api: Api) -> Iterator[tuple[str, str]]:
    """Every list that the API server has: its path and its text."""
    groups = [f"/apis/{group['preferredVersion']['groupVersion']}" for group in api.get("/apis")["groups"]]
    for base in ["/api/v1", *groups]:
        for resource in api.get(base)["resources"]:
            if "list" in resource["verbs"]:
                path = f"{base}/{resource['name']}"
                try:
                    yield path, api.text(path)
                except ApiError as exc:  # another test has just removed what it had defined
                    if exc.status != 404:
                        raise


def files_of_programs(cluster: Cluster) -> Iterator[Path]:
    """What the cluster's programs have written to their logs, and those of pods."""
    for file in cluster.place.rglob("*.log"):
        if file.is_file():
            yield file


def plan_with(canary: str, contract: ToolContract, settings: Settings) -> Plan:
    plan = build_plan(contract, {}, settings)
    file = CallFile("/tmp/in", f"file-{canary}\n".encode())
    return replace(plan, call=replace(plan.call, stdin=f"stdin-{canary}\n".encode(), files=(file,)))


@pytest.mark.parametrize(
    ("waits", "channel"),
    [(False, "forward"), (True, "forward"), (False, "direct")],
    ids=["in a pod made for it", "in a pod that waited", "over a connection to the pod itself"],
)
async def test_nothing_of_a_call_is_in_any_object_event_or_log(
    waits: bool, channel: str, kubernetes_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = uuid4().hex
    monkeypatch.setenv("THE_TOKEN", f"secret-{canary}")
    contract = ToolContract.create_dagger_tool(
        "hello",
        kubernetes_cluster.load_stand_in("busybox:latest"),
        ["sh", "-c", SCRIPT, "sh", f"word-{canary}"],
        env={"WORD": f"variable-{canary}", "TOKEN": SecretRef(secret="THE_TOKEN")},
    )
    said = bytearray()
    with kubernetes_cluster.api() as api, namespace(api) as where:
        settings = Settings(
            root=tmp_path,
            engines={"kubernetes": engine_settings(namespace=where, channel=channel)},  # pyright: ignore[reportArgumentType]
            warm=WarmSettings(enabled=waits),
        )
        plan = plan_with(canary, contract, settings)
        context = ExecutionContext(on_output=lambda _, data: said.extend(data))
        async with KubernetesExecutionEngine(settings) as engine, anyio.create_task_group() as tasks:
            await engine._connected()
            assert engine._pods is not None
            key = engine._pods.key(plan, context)
            if waits:
                assert key is not None
                await engine._pods.pool.fill(key)
            tasks.start_soon(engine.run, plan, context)
            await until(lambda: said.endswith(b"\n.\n"), within=240)
            assert engine._pods.pool.metrics.hits == waits
            assert said.count(canary.encode()) == 4
            assert md5(f"secret-{canary}\n".encode()).hexdigest().encode() in said
            pods = [pod["metadata"]["name"] for pod in api.get(f"/api/v1/namespaces/{where}/pods")["items"]]
            assert pods
            seen = dict(objects_of_all_kinds(api))
            assert pods[0] in seen["/api/v1/pods"]
            assert {"/api/v1/events", "/api/v1/configmaps", "/api/v1/secrets"} <= seen.keys()
            for pod in pods:
                with suppress(Exception):  # one that is just made has no log
                    seen[f"the log of {pod}"] = api.text(f"/api/v1/namespaces/{where}/pods/{pod}/log")
            assert f"the log of {pods[0]}" in seen or f"the log of {pods[-1]}" in seen
            assert [path for path, text in seen.items() if canary in text] == []
            files = list(files_of_programs(kubernetes_cluster))
            assert {"kubelet.log", "containerd.log", "kube-apiserver.log"} <= {file.name for file in files}
            assert [file for file in files if canary.encode() in file.read_bytes()] == []
            tasks.cancel_scope.cancel()
