"""Engines by name, imported and made only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Self

import anyio

from praxis_mcp.defects import places
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.warm_budget import WarmBudget
from praxis_mcp.engines.warm_counts import PoolMetrics
from praxis_mcp.errors import EngineUnavailable, PraxisError
from praxis_mcp.logs import logger
from praxis_mcp.settings import Settings

ENGINES: dict[str, str] = {
    "dagger": "praxis_mcp.engines.dagger:DaggerExecutionEngine",
    "docker": "praxis_mcp.engines.docker:DockerSDKExecutionEngine",
    "local": "praxis_mcp.engines.local:LocalExecutionEngine",
    "remote-mcp": "praxis_mcp.engines.remote_mcp:RemoteMCPEngine",
    "sandbox": "praxis_mcp.engines.sandbox:SandboxExecutionEngine",
}
"""Every engine: name → ``module:Class``."""

CLEANUP_TIMEOUT = 20.0
"""Seconds that one engine may take to release what it holds."""


class EngineRegistry:
    """The engines of one process; an async context manager that cleans them all up."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engines: dict[str, ExecutionEngine] = {}
        self._warm_budget = WarmBudget(settings.warm)

    def names(self) -> tuple[str, ...]:
        """Names of all engines there are, made or not."""
        return tuple(ENGINES)

    def get(self, name: str) -> ExecutionEngine:
        """The engine of that name; the same object every time.

        Raises:
            EngineUnavailable: there is no such engine in this version.
        """
        if name not in self._engines:
            if name not in ENGINES:
                raise EngineUnavailable(
                    f'There is no engine "{name}" in this version.', remedy=f"Choose one of {', '.join(ENGINES)}."
                )
            module, _, attribute = ENGINES[name].partition(":")
            engine: ExecutionEngine = getattr(importlib.import_module(module), attribute)(self._settings)
            engine.warm_budget = self._warm_budget
            self._engines[name] = engine
        return self._engines[name]

    def warm(self) -> Mapping[str, PoolMetrics]:
        """What the engines in use have started ahead of calls, by engine; see `ExecutionEngine.warm`."""
        found = {name: engine.warm() for name, engine in sorted(self._engines.items())}
        return {name: metrics for name, metrics in found.items() if metrics is not None}

    def retire(self, tools: Collection[str]) -> None:
        """See `ExecutionEngine.retire`, for every engine in use."""
        for engine in self._engines.values():
            engine.retire(tools)

    async def cleanup(self) -> None:
        """Release what every engine holds; one that fails or hangs does not keep the others from it."""
        engines, self._engines = self._engines, {}
        for name, engine in engines.items():
            with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True) as scope:
                try:
                    await engine.cleanup()
                except PraxisError as exc:
                    logger.warning("the {} engine could not clean up: {}", name, exc)
                except Exception as exc:  # noqa: BLE001 - the other engines still need their turn
                    logger.error("the {} engine could not clean up: {}", name, places(exc))
            if scope.cancelled_caught:
                logger.warning("the {} engine did not clean up within {} s", name, CLEANUP_TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.cleanup()
