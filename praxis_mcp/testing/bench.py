"""How a test runs contracts on an engine, and pieces that tests share."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.errors import LimitUnsupported
from praxis_mcp.plans.build import build_plan
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing.cases import EngineCase

CALL_LIMIT = 60.0
"""Seconds within which any one call of these tests ends."""
FOREVER = "import signal; signal.pause()"
"""Python that never ends by itself, and burns nothing meanwhile."""


def stdin_of(contract: ToolContract) -> ToolContract:
    """The contract, with a parameter `data` (base64) as its standard input."""
    return with_parameter(contract, Binding(kind=BindKind.STDIN))


def with_parameter(contract: ToolContract, bind: Binding) -> ToolContract:
    parameter = ToolParameter(name="data", bind=bind, keywords={"contentEncoding": "base64"})
    return contract.model_copy(update={"parameters": (*contract.parameters, parameter)})


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Bench:
    """An engine, and how a test runs contracts on it."""

    case: EngineCase
    engine: ExecutionEngine
    settings: Settings

    def plan(self, contract: ToolContract, **arguments: Any) -> Plan:
        return build_plan(contract, arguments, self.settings)

    async def run(
        self, contract: ToolContract, context: ExecutionContext | None = None, **arguments: Any
    ) -> ExecutionResult:
        """Run a contract as a server does, within `CALL_LIMIT`."""
        return await self.run_plan(self.plan(contract, **arguments), context)

    async def run_plan(self, plan: Plan, context: ExecutionContext | None = None) -> ExecutionResult:
        with anyio.fail_after(CALL_LIMIT):
            await self.engine.check_demands(plan)
            return await self.engine.run(plan, context or ExecutionContext())

    async def refuses(self, contract: ToolContract, **arguments: Any) -> bool:
        """Whether the case lacks what the contract demands; if so, check that the engine refuses it."""
        plan = self.plan(contract, **arguments)
        lacking = plan.demands & self.case.lacks
        if not lacking:
            return False
        with pytest.raises(LimitUnsupported) as refusal:
            await self.run_plan(plan)
        assert all(capability.value in str(refusal.value) for capability in lacking)
        return True


def processes(marker: str) -> list[str]:
    """Processes anywhere on this machine, in containers too, whose command line holds `marker`: pid and words."""
    found: list[str] = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended just now
            continue
        if marker in words:
            found.append(f"{directory.name}: {words[:120]}")
    return found


@contextmanager
def measured_growth() -> Iterator[Callable[[], int]]:
    """How far this process's memory rises above where it was (proc(5), VmHWM, reset by writing 5 to clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    yield lambda: _peak() - before


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
