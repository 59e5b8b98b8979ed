"""Nothing of a server runs on that is killed, and two servers take nothing from one another: by processes that are
real, on a real cluster.

`PRAXIS_CHAOS_ROUNDS=100` makes the first a proof; `PRAXIS_CHAOS_SEED` makes other rounds.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.engines.kubernetes.lease import MISSED_AFTER
from praxis_mcp.settings.model import Settings
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.objects import namespace
from tests.engines.kubernetes.victim import START_WITHIN
from tests.kit.until import until

ROUNDS = int(os.environ.get("PRAXIS_CHAOS_ROUNDS", "2"))
SEED = os.environ.get("PRAXIS_CHAOS_SEED", "1")
MOST_AT_ONCE = 4
"""Pods of each kind that a server has: as many as wait for one tool by default."""

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.kubernetes,
    pytest.mark.native,
    pytest.mark.timeout(600 + 120 * ROUNDS),
]


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
async def victim(cluster: Cluster, where: str, *, calls: int, waiting: int) -> AsyncIterator[VictimProcess]:
    """One that has begun, and is killed at the end."""
    image = await anyio.to_thread.run_sync(cluster.load_stand_in, "busybox:latest")
    command = [sys.executable, "-m", "tests.engines.kubernetes.victim", str(cluster.kubeconfig), where, image]
    command += [str(calls), str(waiting)]
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


def engine_for(cluster: Cluster, where: str, root: Path) -> KubernetesExecutionEngine:
    options: Any = {
        "kubernetes": {"kubeconfig": cluster.kubeconfig, "namespace": where, "start_timeout": START_WITHIN},
    }
    return KubernetesExecutionEngine(Settings(root=root, engines=options))


def hello(cluster: Cluster) -> ToolContract:
    return ToolContract.create_dagger_tool("hello", cluster.load_stand_in("busybox:latest"), ["echo", "hello"])


async def test_no_pod_of_a_killed_server_runs_on(kubernetes_cluster: Cluster) -> None:
    dice, worst, struck = random.Random(SEED), 0.0, 0
    with kubernetes_cluster.api() as api, namespace(api) as where:
        for number in range(ROUNDS):
            # In turns: idle, with pods that wait; in the middle of calls; both.
            waiting = dice.randint(1, MOST_AT_ONCE) if number % 3 != 1 else 0
            calls = dice.randint(1, MOST_AT_ONCE) if number % 3 != 0 else 0
            async with victim(kubernetes_cluster, where, calls=calls, waiting=waiting) as server:
                assert await server.says() == "ready"
                assert len(that_run(api, where)) >= calls + waiting
                server.process.kill()
                killed = time.monotonic()
                struck += calls + waiting
            await until(lambda: not that_run(api, where), every=0.1)
            worst = max(worst, time.monotonic() - killed)
    print(f"{struck} pods of {ROUNDS} killed servers had ended after {worst:.1f} s at most")
    if "PRAXIS_CHAOS_ROUNDS" in os.environ:
        assert worst < 10


async def test_one_whose_lease_was_taken_while_it_was_frozen_goes_on_with_a_new_one(
    kubernetes_cluster: Cluster, tmp_path: Path
) -> None:
    with kubernetes_cluster.api() as api, namespace(api) as where:
        async with (
            victim(kubernetes_cluster, where, calls=1, waiting=1) as frozen,
            engine_for(kubernetes_cluster, where, tmp_path) as other,
        ):
            assert await frozen.says() == "ready"
            (lease,) = leases(api, where)
            name = lease["metadata"]["name"]
            assert (await other.execute(hello(kubernetes_cluster), {})).output == "hello\n"
            frozen.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            assert len(that_run(api, where)) >= 2, "it holds its channels"
            let_expire(api, where, lease)

            async def is_taken() -> bool:
                await other.reap()
                return name not in [each["metadata"]["name"] for each in leases(api, where)]

            await until(is_taken, every=0.2)
            server = lease["metadata"]["labels"]["praxis-mcp/server"]
            await until(lambda: server not in str(pods(api, where)), every=0.1)
            # As long as it takes at least where Leases are not made to expire sooner.
            await until(lambda: time.monotonic() - stopped > MISSED_AFTER, every=0.5)
            frozen.process.send_signal(signal.SIGCONT)
            assert await frozen.call() == "hello"
            assert name in [each["metadata"]["name"] for each in leases(api, where)]
            assert (await other.execute(hello(kubernetes_cluster), {})).output == "hello\n"
