"""Which engine takes a call that would have to wait on the one that comes first: a later one of the settings' order
that begins at once, with the same image and the same result. Where that is not certain, the call stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import anyio

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.base import ExecutionEngine, PinnedImage
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.errors import EngineUnavailable, ExecutionError
from praxis_mcp.execution.selection import Decision, EngineSelector
from praxis_mcp.plans.model import Blueprint, Plan, Where

PIN_TIMEOUT = 2.0
"""Seconds that an engine may take to say which image it would run: a daemon that is slower starts no container soon."""
NO_OTHER = "no other engine may run it"
"""The reason of a call that no engine of its contract, or of the settings' order, could ever take over."""
AVOID_AFTER_FAILURE = 30.0
"""Seconds for which an engine that could not run what it stood in for is not asked again for that tool."""
_ROOT = frozenset({"", "0", "root", "0:0", "root:root", "0:root", "root:0"})


@dataclass(frozen=True, slots=True)
class Standby:
    """Where a call runs that would not begin at once on the engine that was chosen.

    Attributes:
        engine: that other engine; None where the call stays.
        image: what it runs.
        reason: why the call stays; empty where it need not.
    """

    engine: str | None = None
    image: PinnedImage | None = None
    reason: str = ""


class Spilling:
    """Finds the engine that stands in.

    Args:
        engines: the engines.
        selector: knows which of them are there.
        enabled: the settings' `engines.spill`.
    """

    def __init__(self, engines: EngineRegistry, selector: EngineSelector, *, enabled: bool) -> None:
        self._engines = engines
        self._selector = selector
        self._enabled = enabled
        self._avoided: dict[tuple[str, str], float] = {}

    async def find(self, plan: Plan, decision: Decision, *, take: bool = True) -> Standby:
        """The engine that stands in for the chosen one, or why none does.

        Args:
            plan: what is to run.
            decision: which engine comes first.
            take: whether an image that only keeps it from that is taken in the background.
        """
        fixed = plan.blueprint
        if decision.engine is None or decision.capabilities is None or fixed.where is not Where.CONTAINER:
            return Standby(reason="it does not run in an image")
        others = fixed.engines[fixed.engines.index(decision.engine) + 1 :]
        if not any(self._stands_in(name, decision.engine) for name in others):
            return Standby(reason=NO_OTHER)
        if not self._enabled:
            return Standby(reason="engines.spill is false")
        if differences := ", ".join(_differences(fixed)):
            return Standby(reason=f"another engine would run it differently ({differences})")
        reasons: list[str] = []
        for name in others:
            reason = await self._why_not(name, plan, decision)
            if not reason:
                return await self._with_image(name, plan, decision.engine, take=take)
            reasons.append(f"{name} {reason}")
        return Standby(reason="; ".join(reasons))

    def _stands_in(self, name: str, first: str) -> bool:
        try:
            return first in self._engines.get(name).stands_in_for
        except EngineUnavailable:
            return False

    def failed(self, engine: str, tool: str) -> None:
        """That engine could not run a call of that tool, for which it stood in."""
        now = anyio.current_time()
        self._avoided = {key: until for key, until in self._avoided.items() if until > now}
        self._avoided[engine, tool] = now + AVOID_AFTER_FAILURE

    async def _why_not(self, name: str, plan: Plan, decision: Decision) -> str:
        """Why that engine does not stand in, its image aside; empty where it does."""
        try:
            engine = self._engines.get(name)
            if decision.engine not in engine.stands_in_for:
                return f"does not stand in for {decision.engine}"
            if self._avoided.get((name, plan.blueprint.tool), 0.0) > anyio.current_time():
                return "has failed just now"
            status = await self._selector.status(name)
            if not status.available:
                return "is not available"
            capabilities = await engine.get_capabilities()
        except EngineUnavailable:
            return "is not available"
        if lacking := capabilities.lacks(plan):
            return f"cannot enforce {', '.join(lacking)}"
        assert decision.capabilities is not None
        if plan.blueprint.limits.pids is None and capabilities.default_pids != decision.capabilities.default_pids:
            return "cannot bound its processes"
        return ""

    async def _with_image(self, name: str, plan: Plan, first: str, *, take: bool) -> Standby:
        image = await self._pinned(self._engines.get(first), plan.blueprint)
        if image is None:
            return Standby(reason=f"{first} does not say which image it would run, or is set up as no other engine is")
        if plan.blueprint.user is None and image.user not in _ROOT:
            return Standby(reason="another engine would run it differently (the image's own user)")
        if image.has_volumes:
            return Standby(reason="another engine would run it differently (the image's volumes)")
        engine = self._engines.get(name)
        try:
            differences = await engine.find_differences(plan.blueprint, image)
        except EngineUnavailable:
            return Standby(reason=f"{name} is not available")
        if differences:
            return Standby(reason=f"another engine would run it differently ({', '.join(differences)})")
        if engine.has_image(image):
            return Standby(name, image)
        if take:
            engine.take_image(image)
        return Standby(reason=f"{name} does not have its image ({image.digest}) yet")

    @staticmethod
    async def _pinned(engine: ExecutionEngine, blueprint: Blueprint) -> PinnedImage | None:
        with anyio.move_on_after(PIN_TIMEOUT):
            try:
                return await engine.pin_image(blueprint)
            except ExecutionError:  # the call will say it
                return None
        return None


def _differences(fixed: Blueprint) -> Iterator[str]:
    """What of a contract no two engines do alike, in the contract's words: each has its own networks, users of images,
    room for what is written to a root, and place for what is kept."""
    if fixed.network is not Network.NONE:
        yield f"network: {fixed.network.value}"
    if fixed.cache_dirs:
        yield "cache_dirs"
    if fixed.privileged:
        yield "privileged"
    if fixed.drop_capabilities is False:
        yield "drop_capabilities: false"
    if fixed.read_only is False:
        yield "read_only: false"
    if fixed.user is not None and fixed.user not in _ROOT:
        yield "its user"
