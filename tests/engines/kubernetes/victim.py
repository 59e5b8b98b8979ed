"""A server process that tests kill: has one call in a pod that never ends by itself and a pod that waits for another,
and says so.

Usage: python -m tests.engines.kubernetes.victim KUBECONFIG NAMESPACE IMAGE
"""

import sys
from typing import Any

import anyio

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from tests.kit.until import until

START_WITHIN = 240.0
"""Seconds for a pod on a busy machine."""


async def main(kubeconfig: str, namespace: str, image: str) -> None:
    options: Any = {
        "kubernetes": {"kubeconfig": kubeconfig, "namespace": namespace, "start_timeout": START_WITHIN},
    }
    contract = ToolContract.create_dagger_tool(
        "victim", image, ["sh", "-c", "echo begun; exec sleep 1000"], timeout=600.0
    )
    async with KubernetesExecutionEngine(Settings(engines=options)) as engine, anyio.create_task_group() as tasks:
        begun = anyio.Event()
        context = ExecutionContext(on_output=lambda *_: begun.set())
        tasks.start_soon(engine.run, build_plan(contract, {}, engine.settings), context)
        with anyio.fail_after(START_WITHIN):
            await begun.wait()
        await until(lambda: (metrics := engine.warm()) and metrics.waiting, within=START_WITHIN)
        print("ready", flush=True)
        await anyio.sleep_forever()


anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
