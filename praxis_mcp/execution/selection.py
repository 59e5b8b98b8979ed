"""Which engine runs a plan, and why: refuse or route, never ignore."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from praxis_mcp.engines.base import EngineCapabilities, EngineStatus
from praxis_mcp.engines.registry import ENGINES, EngineRegistry
from praxis_mcp.errors import EngineUnavailable, LimitUnsupported, PraxisError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.logs import logger, places

STATUS_KEPT = 30.0
"""Seconds for which an engine that was found is not probed again (a failing call forgets it sooner)."""
ABSENCE_KEPT = 5.0
"""Seconds for which an engine that was missing is not looked for again."""
ENGINE_PROBE_TIMEOUT = 5.0
"""Seconds that looking for one engine may take."""
SILENCE_BORNE = 20.0
"""Seconds for which a call that has no other engine goes on asking one that gives no answer: a busy daemon will."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What speaks for or against one engine: `reason` is empty for the one that was chosen, and `silent` says of one
    that it gave no answer in time."""

    engine: str
    reason: str = ""
    remedy: str = ""
    available: bool = True
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The engine that runs a plan, None when none can, and the verdict on each that was considered, in order.

    Attributes:
        capabilities: of that engine.
    """

    engine: str | None
    verdicts: tuple[Verdict, ...]
    capabilities: EngineCapabilities | None = None

    @property
    def passed_over(self) -> tuple[Verdict, ...]:
        """The engines that would have come first, and why they did not."""
        return tuple(verdict for verdict in self.verdicts if verdict.engine != self.engine)


class EngineSelector:
    """Chooses engines by order, availability and what they can enforce."""

    def __init__(self, engines: EngineRegistry) -> None:
        self._engines = engines
        self._statuses: dict[str, tuple[EngineStatus, float]] = {}
        self._locks: dict[str, anyio.Lock] = {}

    async def status(self, name: str) -> EngineStatus:
        """Whether an engine can be used; looked up again when the last look is too old. Bounded."""
        if (known := self._known(name)) is not None:
            return known
        async with self._locks.setdefault(name, anyio.Lock()):
            if (known := self._known(name)) is not None:  # another call has looked meanwhile
                return known
            status = await self._probe(name)
            kept = STATUS_KEPT if status.available else ABSENCE_KEPT
            self._statuses[name] = (status, anyio.current_time() + kept)
            return status

    def _known(self, name: str) -> EngineStatus | None:
        status, until = self._statuses.get(name, (None, 0.0))
        return status if until > anyio.current_time() else None

    def forget(self, name: str) -> None:
        """Probe that engine again before it is next chosen (it failed)."""
        self._statuses.pop(name, None)

    async def decide(self, plan: Plan) -> Decision:
        """The decision on a plan; considers engines in order and stops at the first that can."""
        verdicts: list[Verdict] = []
        for name in plan.blueprint.engines:
            status = await self.status(name)
            never = self._never(name, plan)
            if not status.available and never:
                verdicts.append(Verdict(name, f"cannot enforce {', '.join(never)}", available=False))
                continue
            if not status.available:
                reason = status.detail or "is not available"
                verdicts.append(Verdict(name, reason, status.remedy, available=False, silent=status.silent))
                continue
            try:
                capabilities = await self._engines.get(name).get_capabilities()
            except EngineUnavailable as exc:
                self.forget(name)
                verdicts.append(Verdict(name, exc.message, exc.remedy or "", available=False))
                continue
            lacking = capabilities.lacks(plan)
            if lacking:
                verdicts.append(Verdict(name, f"cannot enforce {', '.join(lacking)}", capabilities.remedy_for(plan)))
                continue
            verdicts.append(Verdict(name))
            return Decision(name, tuple(verdicts), capabilities)
        return Decision(None, tuple(verdicts))

    async def choose(self, plan: Plan) -> Decision:
        """The decision, where it found an engine. Where the only ones that might run it give no answer, they are asked
        again for `SILENCE_BORNE`.

        Raises:
            LimitUnsupported: an engine is there, but cannot enforce what the contract demands.
            EngineUnavailable: no engine is there.
        """
        until = anyio.current_time() + SILENCE_BORNE
        decision = await self.decide(plan)
        while decision.engine is None and anyio.current_time() < until:
            if not any(verdict.silent for verdict in decision.verdicts):
                break
            await anyio.sleep(ABSENCE_KEPT)  # not at once: of many calls that wait, one is to ask, and tell the others
            decision = await self.decide(plan)
        if decision.engine is not None:
            return decision
        tool = plan.blueprint.tool
        reasons = "; ".join(f"{verdict.engine}: {verdict.reason.rstrip('.')}" for verdict in decision.verdicts)
        remedies = _remedies(decision.verdicts)
        if any(verdict.available for verdict in decision.verdicts):
            raise LimitUnsupported(
                f"No engine can run {tool} as its contract demands ({reasons}).",
                remedy=remedies or "Remove the demand from the contract, or make another engine available.",
            )
        raise EngineUnavailable(f"No engine is available to run {tool} ({reasons}).", remedy=remedies or None)

    def _never(self, name: str, plan: Plan) -> list[str]:
        """What the plan demands and that engine cannot enforce, wherever it runs."""
        try:
            return sorted(item.value for item in plan.demands & self._engines.get(name).never)
        except EngineUnavailable:
            return []

    async def _probe(self, name: str) -> EngineStatus:
        with anyio.move_on_after(ENGINE_PROBE_TIMEOUT):
            try:
                return await self._engines.get(name).probe()
            except PraxisError as exc:
                return EngineStatus(name, available=False, detail=exc.message, remedy=exc.remedy or "")
            except Exception as exc:
                if name in ENGINES:
                    raise
                logger.error("the engine {} of another package has a defect: {}", name, places(exc))
                return EngineStatus(name, available=False, detail=f"has a defect ({type(exc).__name__}), see the log")
        detail = f"did not answer within {ENGINE_PROBE_TIMEOUT:g} s"
        return EngineStatus(name, available=False, detail=detail, silent=True)


def _remedies(verdicts: tuple[Verdict, ...]) -> str:
    """What makes an engine able to run it: a line for each engine, where they differ, because one of them is enough."""
    each = {verdict.engine: verdict.remedy for verdict in verdicts if verdict.remedy}
    if len(set(each.values())) <= 1:
        return next(iter(each.values()), "")
    return "\n".join(["One of these is enough:", *(f"- {engine}: {remedy}" for engine, remedy in each.items())])
