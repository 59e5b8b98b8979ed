"""A server process that tests kill: starts one call on Docker that never ends by itself, and prints its container's id.

Usage: python -m tests.engines.docker_victim TIMEOUT
"""

import sys

import anyio

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.docker import DockerSDKExecutionEngine
from praxis_mcp.plans.build import build_plan
from tests.engines.docker_case import containers


async def main() -> None:
    contract = ToolContract.create_dagger_tool(
        "victim", "busybox:1.36", ["sh", "-c", "echo ready; exec sleep 1000"], timeout=float(sys.argv[1])
    )
    async with DockerSDKExecutionEngine() as engine:
        plan = build_plan(contract, {}, engine.settings)

        def tell(*_: object) -> None:
            print(containers(f"praxis-mcp.run={plan.call.run_id}")[0].split()[0], flush=True)

        await engine.execute(contract, {}, ExecutionContext(plan, on_output=tell))


anyio.run(main)
