"""A call of the Kubernetes engine, in a pod that waited and in one made for it, compared with `docker run`, a bare
pod, and a connection to the pod that goes past the API server.

The cluster is the one that KUBECONFIG names, whose nodes need to have, or to get, the image; PRAXIS_BENCH_CLUSTER=start
starts that of the tests instead (as root, see CONTRIBUTING.md).
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio

from benchmarks.calls import spawning
from benchmarks.measure import Report, Row, Work, in_turns
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.kubernetes.client import Cluster
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.engines.kubernetes.pods import OwnPod
from praxis_mcp.engines.kubernetes.warm import PodKey, WarmKubernetes, WarmPod
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings

START_VARIABLE = "PRAXIS_BENCH_CLUSTER"
"""``start``: start the cluster of the tests."""
IMAGE = "busybox:1.36"
COMMAND = ["echo", "hi"]
AT_ONCE = 16
START_WITHIN = 120.0
SETTLE = 1.0
"""Seconds of rest before each timing: for the removal of pods."""
LOOK_EVERY = 1.0
"""Seconds between two looks of a kubelet at its containers (its PLEG): it reports what has become of a pod with the
next, so that all that waits for it takes steps of that length."""
SPREAD = 0.618
"""Timings begin at all points between two looks: each this part of `LOOK_EVERY` after that of the one before (its
multiples lie evenly). Else each would begin where the one before has ended, which is right after a look."""

RUN = "docker run --rm"
WAITING, DIRECT = "a waiting call", "a waiting call, channel: direct"
ONE, MANY = "one waiting call", f"{AT_ONCE} waiting calls at once"
BARE_POD, WAITING_POD = "a bare pod, made to running", "a waiting pod, made to hello"
BARE_COLD, COLD = "a bare pod, made to ended", "a cold call"
BURST = f"{AT_ONCE} cold calls at once"


@contextmanager
def kubeconfig() -> Iterator[Path | None]:
    """The configuration of the cluster to measure on; None where none is named, and none was asked for."""
    if os.environ.get(START_VARIABLE) == "start":
        from tests.cluster.cluster import running_cluster

        with running_cluster(nodes=2) as cluster:
            yield cluster.kubeconfig
    else:
        named = os.environ.get("KUBECONFIG")
        yield Path(named) if named else None


class Ground:
    """An engine on the cluster, and its tool.

    Args:
        config: of the cluster.
        more: further settings of the engine.
    """

    def __init__(self, config: Path, **more: Any) -> None:
        self.options = {"kubeconfig": config, "start_timeout": START_WITHIN, **more}
        warm = {"max_per_tool": AT_ONCE, "max_containers": AT_ONCE}
        self.settings = Settings.model_validate({"engines": {"kubernetes": self.options}, "warm": warm})
        self.engine = KubernetesExecutionEngine(self.settings)
        self._settled = itertools.count()
        self.contract = ToolContract.create_dagger_tool("echo", IMAGE, COMMAND)
        self.cold = ToolContract.create_dagger_tool("echo", IMAGE, COMMAND, warm=False)

    @property
    def pods(self) -> WarmKubernetes:
        """What makes its pods, once it is connected."""
        found = self.engine._pods
        assert found is not None
        return found

    @property
    def key(self) -> PodKey:
        """Of the pods that wait for its tool."""
        key = WarmKubernetes.key(build_plan(self.contract, {}, self.settings), ExecutionContext())
        assert key is not None
        return key

    async def have_waiting(self, count: int) -> None:
        """Have so many pods wait, however long it takes."""
        lacking = max(0, count - len(self.pods.pool.waiting))
        async with anyio.create_task_group() as tasks:
            for _ in range(lacking):
                tasks.start_soon(self.pods.pool.fill, self.key)

    async def settle(self) -> None:
        """Rest before a timing, until it is time for it; see `SPREAD`."""
        await anyio.sleep(SETTLE)
        begin = next(self._settled) * SPREAD * LOOK_EVERY
        await anyio.sleep((begin - time.monotonic()) % LOOK_EVERY)

    async def call(self, contract: ToolContract | None = None) -> None:
        """One call."""
        result = await self.engine.execute(contract or self.contract, {})
        assert result.output == "hi\n", result

    def calling(self, waiting: int, at_once: int, contract: ToolContract | None = None) -> Work:
        """Calls at once, once so many pods wait."""

        async def work() -> float:
            await self.have_waiting(waiting)
            await self.settle()
            before = self.pods.pool.metrics
            began = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for _ in range(at_once):
                    tasks.start_soon(self.call, contract)
            took = time.perf_counter() - began
            assert self.pods.pool.metrics.hits - before.hits == min(waiting, at_once), "no pod waited"
            return took

        return work

    async def make_waiting(self) -> float:
        """From the request for a pod until it is ready for a call."""
        await self.settle()
        began = time.perf_counter()
        pod: WarmPod = await self.pods.start(self.key)
        took = time.perf_counter() - began
        await pod.discard()
        return took

    def bare(self, *command: str, ends: bool) -> Work:
        """From the request for a bare pod until it runs, or has ended."""

        async def work() -> float:
            await self.settle()
            cluster = self.engine._cluster
            assert isinstance(cluster, Cluster)
            pod = OwnPod(cluster, f"bare-{secrets.token_hex(5)}", lambda path, is_late: None)
            began = time.perf_counter()
            try:
                await pod.create(_body(pod.name, command))
                await (pod.end() if ends else pod.run(lambda trouble: None))
                return time.perf_counter() - began
            finally:
                await pod.remove()

        return work


def _body(name: str, command: tuple[str, ...]) -> dict[str, Any]:
    container = {"name": "tool", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": list(command)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        },
    }  # with a token, as `kubectl run` makes it: a pod without any volume is there 0.3 s sooner


async def measure(rounds: int) -> list[Report]:
    """The tables; none where there is no cluster."""
    with kubeconfig() as config:
        if config is not None:
            return await _measured(config, rounds)
    why = f"KUBECONFIG names no cluster, and {START_VARIABLE}=start does not start one"
    print(f"kubernetes: left out: {why}", file=sys.stderr)
    return []


async def _measured(config: Path, rounds: int) -> list[Report]:
    async with AsyncExitStack() as stack:
        ground = Ground(config)
        await stack.enter_async_context(ground.engine)
        await ground.call()  # it connects
        waiting: dict[str, Work] = {}
        if shutil.which("docker"):
            waiting[RUN] = spawning(["docker", "run", "--rm", "--network", "none", IMAGE, *COMMAND])
        waiting[WAITING] = ground.calling(1, 1)
        direct = Ground(config, channel="direct")
        await stack.enter_async_context(direct.engine)
        try:
            await direct.call()
            waiting[DIRECT] = direct.calling(1, 1)
        except ExecutionError as exc:
            print(f"{DIRECT}: left out: {exc.message}", file=sys.stderr)
        against = dict.fromkeys(waiting.keys() - {WAITING}, WAITING)
        rows = await in_turns(waiting, 2 * rounds, against=against)
        calls = Report(f"Kubernetes: echo in {IMAGE}, a pod that waits", rows)
        works: dict[str, Work] = {
            BARE_POD: ground.bare("sleep", "600", ends=False),
            WAITING_POD: ground.make_waiting,
            BARE_COLD: ground.bare(*COMMAND, ends=True),
            COLD: ground.calling(0, 1, ground.cold),
        }
        rows = await in_turns(works, rounds, against={WAITING_POD: BARE_POD, COLD: BARE_COLD})
        pods = Report(f"Kubernetes: {IMAGE}, a pod that is made", rows)
        works = {ONE: ground.calling(AT_ONCE, 1), MANY: ground.calling(AT_ONCE, AT_ONCE)}
        rows = await in_turns(works, max(3, rounds // 3), against={MANY: ONE})
        rows.append(Row(BURST, [await ground.calling(0, AT_ONCE, ground.cold)()]))
        return [calls, pods, Report(f"Kubernetes: {AT_ONCE} calls at once", rows)]
