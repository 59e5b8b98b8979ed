"""A server process that tests kill or freeze: it has calls in pods that never end by themselves, and pods that wait for
others, and says so. Then it makes a call for each line that it reads, and answers it with a line.

Usage: python -m tests.engines.kubernetes.victim KUBECONFIG NAMESPACE IMAGE CALLS WAITING AGENT_SANDBOX HOLD_FOR
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.kubernetes import sandboxes
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings

START_WITHIN = 240.0
"""Seconds for a pod on a busy machine."""


class Victim:
    """Its engine, and what runs there."""

    def __init__(self, engine: KubernetesExecutionEngine, image: str) -> None:
        self.engine = engine
        self.image = image

    async def call_for_ever(self, begun: anyio.Event) -> None:
        contract = ToolContract.create_dagger_tool(
            "endless", self.image, ["sh", "-c", "echo begun; exec sleep 1000"], timeout=600.0, warm=False
        )
        context = ExecutionContext(on_output=lambda *_: begun.set())
        with suppress(ExecutionError):  # its pod may be removed while this process is frozen
            await self.engine.run(build_plan(contract, {}, self.engine.settings), context)

    async def call(self) -> str:
        contract = ToolContract.create_dagger_tool("hello", self.image, ["echo", "hello"])
        try:
            return (await self.engine.execute(contract, {})).output.strip()
        except ExecutionError as exc:
            return f"failed: {exc.message}"

    async def have_waiting(self, count: int) -> None:
        """Have so many pods wait for `call`."""
        await self.call()
        pool = self.engine._warm_pool
        assert pool is not None
        key = next(iter(pool._shelves))  # of that call
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(pool.fill, key)


async def main(kubeconfig: str, namespace: str, image: str, calls: int, waiting: int, choice: str) -> None:
    own = {"kubeconfig": Path(kubeconfig), "namespace": namespace, "start_timeout": START_WITHIN}
    options: Any = {"kubernetes": {**own, "agent_sandbox": choice}}
    settings = Settings(engines=options)
    async with KubernetesExecutionEngine(settings) as engine, anyio.create_task_group() as tasks:
        victim = Victim(engine, image)
        begun = [anyio.Event() for _ in range(calls)]
        for event in begun:
            tasks.start_soon(victim.call_for_ever, event)
        print("begun", flush=True)
        with anyio.fail_after(START_WITHIN):
            for event in begun:
                await event.wait()
        if waiting:
            await victim.have_waiting(waiting)
        print("ready", flush=True)
        while await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(await victim.call(), flush=True)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    sandboxes.HOLD_FOR = float(sys.argv[7])
    sandboxes.HOLD_EVERY = sandboxes.HOLD_FOR / 5
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
