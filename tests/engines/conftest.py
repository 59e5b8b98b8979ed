"""Ground of the engine tests: each engine's case, one engine a module, and `Bench`, which runs contracts on it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.errors import LimitUnsupported
from praxis_mcp.plans.build import build_plan
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings import Settings
from tests.engines.cases import EngineCase, all_cases, parameters

CALL_LIMIT = 60.0
"""Seconds within which any one call of these tests ends."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "demands(*capabilities): the test's contract demands these of its engine")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("demands")
    demanded = frozenset(marker.args if marker else ())
    cases = [case for case in all_cases() if not demanded & case.inexpressible]
    metafunc.parametrize("case", parameters(cases), scope="module")


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
        """Run a contract through `execute`, within `CALL_LIMIT`; `context` needs no plan."""
        return await self.run_plan(contract, self.plan(contract, **arguments), context)

    async def run_plan(
        self, contract: ToolContract, plan: Plan, context: ExecutionContext | None = None
    ) -> ExecutionResult:
        context = context or ExecutionContext()
        planned = ExecutionContext(plan, context.on_output, context.on_status, context.directory, context.max_stream)
        with anyio.fail_after(CALL_LIMIT):
            return await self.engine.execute(contract, plan.call.arguments, planned)

    async def refuses(self, contract: ToolContract, **arguments: Any) -> bool:
        """Whether the case lacks what the contract demands; if so, check that the engine refuses it."""
        plan = self.plan(contract, **arguments)
        lacking = plan.demands & self.case.lacks
        if not lacking:
            return False
        with pytest.raises(LimitUnsupported) as refusal:
            await self.run_plan(contract, plan)
        assert all(capability.value in str(refusal.value) for capability in lacking)
        return True


@pytest.fixture(scope="module")
def settings(case: EngineCase, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return case.settings(root=tmp_path_factory.mktemp("root"), policy={"privileged": True, "host_network": True})


@pytest.fixture(scope="module")
async def bench(case: EngineCase, settings: Settings, anyio_backend: str) -> AsyncIterator[Bench]:
    async with case.engine(settings) as engine:
        yield Bench(case, engine, settings)
    left = case.leftovers()
    assert not left, f"left behind by the {case.name} engine: {left}"


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
