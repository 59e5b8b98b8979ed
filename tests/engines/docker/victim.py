"""A server process that tests kill: starts one call on Docker that never ends by itself, and prints its container's id.

Usage: python -m tests.engines.docker.victim TIMEOUT [MEMORY_LIMIT] [warm]

With `warm`, it prints the id of a container that waits for another call, as soon as there is one.
"""

import os
import sys

import anyio

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from tests.engines.docker.case import containers
from tests.kit.until import until


async def main() -> None:
    timeout, *more = sys.argv[1:]
    warm = "warm" in more
    contract = ToolContract.create_dagger_tool(
        "victim",
        "busybox:1.36",
        ["sh", "-c", "echo ready; exec sleep 1000"],
        timeout=float(timeout),
        memory_limit=next((word for word in more if word != "warm"), None),
    )
    settings = Settings(warm={"enabled": warm})  # pyright: ignore[reportArgumentType]
    async with DockerSDKExecutionEngine(settings) as engine, anyio.create_task_group() as tasks:
        plan = build_plan(contract, {}, engine.settings)

        async def tell_of_waiting() -> None:
            labels = (f"praxis-mcp.pid={os.getpid()}", "praxis-mcp.warm=1", "status=running")
            print((await until(lambda: containers(*labels)))[0].split()[0], flush=True)

        def tell(*_: object) -> None:
            if warm:
                tasks.start_soon(tell_of_waiting)
                return
            print(containers(f"praxis-mcp.run={plan.call.run_id}")[0].split()[0], flush=True)

        await engine.run(plan, ExecutionContext(on_output=tell))


anyio.run(main)
