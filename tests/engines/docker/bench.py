"""Benches and small contracts for tests of the Docker engine alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing.bench import Bench
from tests.engines.docker.case import CASE

BUSYBOX = "busybox:1.36"


@asynccontextmanager
async def bench_on(*, warm: dict[str, Any] | None = None, **docker: Any) -> AsyncIterator[Bench]:
    """An engine whose every call takes the cold path, unless `warm` sets that section of the settings."""
    settings = Settings(engines={"docker": docker}, warm=warm or {"enabled": False})  # pyright: ignore[reportArgumentType]
    async with DockerSDKExecutionEngine(settings) as engine:
        yield Bench(CASE, engine, settings)


LATE = "echo begun; exec sleep 1000"
"""A tool that says something, and then waits for its deadline."""


def tool(script: str, **fields: Any) -> ToolContract:
    return CASE.sh(script, **{"image": BUSYBOX, **fields})
