"""Servers of the tests that end, and what there is of them in a real cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.engines.kubernetes.sandboxes import HOLD_FOR
from praxis_mcp.settings.model import Settings
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.engines.kubernetes.victim import START_WITHIN


class VictimProcess:
    """A server in a process of its own; see `victim`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    async def says(self) -> str:
        assert self.process.stdout is not None
        with anyio.fail_after(2 * START_WITHIN):
            line = await anyio.to_thread.run_sync(self.process.stdout.readline, abandon_on_cancel=True)
        return line.strip()

    async def call(self) -> str:
        """Have it make a call; what came out."""
        assert self.process.stdin is not None
        self.process.stdin.write("call\n")
        self.process.stdin.flush()
        return await self.says()


@asynccontextmanager
async def victim(
    cluster: Cluster, where: str, *, calls: int, waiting: int, agent_sandbox: str = "never", hold_for: float = HOLD_FOR
) -> AsyncIterator[VictimProcess]:
    """One that has begun, and is killed at the end.

    Args:
        calls, waiting: how many pods run calls, and wait for one.
        agent_sandbox: whether agent-sandbox makes them, as the settings have it.
        hold_for: seconds after which what owns its pools expires.
    """
    image = await anyio.to_thread.run_sync(cluster.load_stand_in, "busybox:latest")
    command = [sys.executable, "-m", "tests.engines.kubernetes.victim", str(cluster.kubeconfig), where, image]
    command += [str(calls), str(waiting), agent_sandbox, str(hold_for)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        try:
            found = VictimProcess(process)
            assert await found.says() == "begun"
            yield found
        finally:
            process.kill()


def pods(api: Api, where: str) -> list[dict[str, Any]]:
    return api.get(f"/api/v1/namespaces/{where}/pods")["items"]


def that_run(api: Api, where: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods(api, where) if pod["status"].get("phase") in ("Pending", "Running")]


def leases(api: Api, where: str) -> list[dict[str, Any]]:
    return api.get(f"/apis/coordination.k8s.io/v1/namespaces/{where}/leases")["items"]


def let_expire(api: Api, where: str, lease: dict[str, Any]) -> None:
    """Have a Lease expire three times over in three seconds."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{where}/leases/{lease['metadata']['name']}"
    api.patch(path, {"spec": {"leaseDurationSeconds": 1}})


def engine_for(cluster: Cluster, where: str, root: Path, **more: Any) -> KubernetesExecutionEngine:
    own = {"kubeconfig": cluster.kubeconfig, "namespace": where, "start_timeout": START_WITHIN}
    options: Any = {"kubernetes": {**own, "agent_sandbox": "never"}}
    return KubernetesExecutionEngine(Settings(root=root, engines=options, **more))


def hello(cluster: Cluster) -> ToolContract:
    return ToolContract.create_dagger_tool("hello", cluster.load_stand_in("busybox:latest"), ["echo", "hello"])
