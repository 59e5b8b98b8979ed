"""Nothing of a server runs on that is killed, and two servers take nothing from one another: by processes that are
real, on a real cluster.

`PRAXIS_CHAOS_ROUNDS=100` makes the first a proof; `PRAXIS_CHAOS_SEED` makes other rounds.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from praxis_mcp.engines.kubernetes.lease import MISSED_AFTER
from tests.cluster.cluster import Cluster
from tests.cluster.objects import namespace
from tests.engines.kubernetes.servers import engine_for, hello, leases, let_expire, pods, that_run, victim
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
