"""A small real engine for tests of what lies above engines: it runs nothing, and says so in its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from praxis_mcp.engines.base import EngineCapabilities, EngineStatus, ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.plans.model import Capability, Plan
from praxis_mcp.settings.model import Settings


class AnsweringEngine(ExecutionEngine):
    """Answers every plan with what `answer` makes of it."""

    name: ClassVar[str] = "answering"

    def __init__(
        self,
        answer: Callable[[Plan], ExecutionResult] | None = None,
        *,
        lacks: frozenset[Capability] = frozenset(),
        available: bool = True,
        remedy: str = "Wait.",
    ) -> None:
        super().__init__()
        self.answer = answer or (lambda plan: ExecutionResult(plan.call.run_id, "answering", "none", 0))
        self.lacks = lacks
        self.available = available
        self.remedy = remedy
        self.plans: list[Plan] = []
        self.probes = 0

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        self.plans.append(plan)
        return self.answer(plan)

    async def get_capabilities(self) -> EngineCapabilities:
        return EngineCapabilities(self.name, "none", frozenset(Capability) - self.lacks)

    async def probe(self) -> EngineStatus:
        self.probes += 1
        return EngineStatus(
            self.name, self.available, detail="" if self.available else "is switched off", remedy=self.remedy
        )


class Engines(EngineRegistry):
    """A registry of given engines."""

    def __init__(self, **engines: ExecutionEngine) -> None:
        super().__init__(Settings())
        self._engines = dict(engines)
