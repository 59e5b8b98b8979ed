"""Engines by name, imported and made only when asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pkgutil import resolve_name
from types import TracebackType
from typing import Self

import anyio

from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.warm.counts import PoolMetrics
from praxis_mcp.engines.warm.pool import WarmBudget
from praxis_mcp.errors import EngineUnavailable, PraxisError
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.installation import usable_plugins
from praxis_mcp.support.logs import logger, places

ENGINES: dict[str, str] = {
    "dagger": "praxis_mcp.engines.dagger.engine:DaggerExecutionEngine",
    "docker": "praxis_mcp.engines.docker.engine:DockerSDKExecutionEngine",
    "http": "praxis_mcp.engines.http.engine:HttpEngine",
    "kubernetes": "praxis_mcp.engines.kubernetes.engine:KubernetesExecutionEngine",
    "local": "praxis_mcp.engines.host.local:LocalExecutionEngine",
    "remote-mcp": "praxis_mcp.engines.remote:RemoteMCPEngine",
    "sandbox": "praxis_mcp.engines.host.sandbox:SandboxExecutionEngine",
}
"""Every engine: name → ``module:Class``."""

ELSEWHERE = frozenset({"kubernetes"})
"""Engines on other machines: nobody looks there on their own account for what servers have left."""

CLEANUP_TIMEOUT = 20.0
"""Seconds that one engine may take to release what it holds."""


class EngineRegistry:
    """The engines of one process; an async context manager that cleans them all up."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engines: dict[str, ExecutionEngine] = {}
        self._warm_budget = WarmBudget(settings.warm)

    def names(self) -> tuple[str, ...]:
        """Names of our own engines, made or not, and of those of other packages that the settings ask for or that have
        been made."""
        return tuple(dict.fromkeys((*ENGINES, *self._settings.engines.order, *self._engines)))

    def names_to_reap(self) -> tuple[str, ...]:
        """Of `names`, those where what killed servers left is looked for: not `ELSEWHERE`, unless the settings name
        them or a call has used them."""
        used = (*self._settings.engines.order, *self._engines)
        return tuple(name for name in self.names() if name not in ELSEWHERE or name in used)

    def get(self, name: str) -> ExecutionEngine:
        """The engine of that name; the same object every time.

        Raises:
            EngineUnavailable: there is no such engine, or that of another package cannot be loaded.
        """
        if name not in self._engines:
            if name in ENGINES:
                engine: ExecutionEngine = resolve_name(ENGINES[name])(self._settings)
            else:
                engine = _of_plugin(name, self._settings)
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


def _of_plugin(name: str, settings: Settings) -> ExecutionEngine:
    """An engine of another package. Whatever its code does wrong while it is imported and made is its own fault, and
    costs no other engine anything."""
    plugin = usable_plugins().get(name)
    if plugin is None:
        names = (*ENGINES, *usable_plugins())
        raise EngineUnavailable(f'There is no engine "{name}" here.', remedy=f"Choose one of {', '.join(names)}.")
    subject = f"The engine {name} of {plugin.package} ({plugin.target})"
    try:
        engine = resolve_name(plugin.target)(settings)
    except PraxisError as exc:
        raise EngineUnavailable(f"{subject} cannot be used: {exc.message}", remedy=exc.remedy) from exc
    except (Exception, SystemExit) as exc:
        logger.error("{} cannot be loaded: {}", subject, places(exc))
        # What is missing is named; other messages may hold anything.
        reason = f"{type(exc).__name__}: {exc}" if isinstance(exc, ImportError) else type(exc).__name__
        raise EngineUnavailable(
            f"{subject} cannot be loaded: {reason}.",
            remedy="Install what it needs, or another version of it; the log says where it failed.",
        ) from exc
    if not isinstance(engine, ExecutionEngine) or engine.name != name:
        raise EngineUnavailable(
            f'{subject} is not a praxis_mcp.ExecutionEngine with name = "{name}".',
            remedy="Ask its author to run praxis_mcp.testing, or remove the package.",
        )
    return engine
