"""A server process that tests kill: has execs of Dagger wait for calls, and says so.

Usage: python -m tests.engines.dagger.victim STATE|real WORKDIR
"""

import sys
from pathlib import Path

import anyio

from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine
from tests.engines.dagger.case import connection
from tests.engines.dagger.ground import Ground, settings_for, sh
from tests.kit.until import until


async def main(state: str, workdir: str) -> None:
    settings = settings_for({} if state == "real" else connection(Path(state)), warm={"enabled": True})
    async with DaggerExecutionEngine(settings) as engine:
        await Ground(engine, None).run(sh("true", working_dir=workdir))
        await until(lambda: (metrics := engine.warm()) and metrics.waiting)
        print("waiting", flush=True)
        await anyio.sleep_forever()


anyio.run(main, sys.argv[1], sys.argv[2])
