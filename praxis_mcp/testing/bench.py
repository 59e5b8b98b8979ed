"""An engine under test: what the conformance suite must know of it, how a test runs contracts on it, and pieces that
tests share."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine, ExecutionResult
from praxis_mcp.errors import ContractError, LimitUnsupported
from praxis_mcp.plans.build import build_plan
from praxis_mcp.plans.model import Blueprint, Capability, Plan
from praxis_mcp.settings.model import Settings


class EngineCase:
    """One engine under test.

    Attributes:
        name: the engine's name, and the test's id.
        marks: what a machine needs to run it (`pytest.mark.docker`, …).
        inexpressible: demands that a contract of this engine has no word for (`user` of a local command): tests of
            them are not made.
        python_program: what runs Python where the tool runs; 3.11 or newer.
        bulk: bytes that the tests of large input and output move, a multiple of 100,000: many once for each way of
            moving them, and few on an engine that moves them as another does, which is tested with many.
        mounts_may_change: whether calls work while files come and go in their mounts all the time.
        holds_files_only: whether read-only mounts may hold regular files only, and no other mount: contracts with
            others are refused when they are called.
        writable_place: a directory of the image that the tool's user may write to where the root is not read-only.
    """

    name: str
    marks: tuple[pytest.MarkDecorator, ...] = ()
    inexpressible: frozenset[Capability] = frozenset()
    python_program: str = "python3"
    bulk: int = 100_000_000
    mounts_may_change: bool = True
    holds_files_only: bool = False
    writable_place: str = "/usr"

    @property
    def lacks(self) -> frozenset[Capability]:
        """Demands that this engine cannot meet on this machine: the suite checks that they are refused, with
        `LimitUnsupported`, and that nothing runs. Asked within tests only, so it may look at the machine."""
        return frozenset()

    def settings(self, **values: Any) -> Settings:
        """Settings to make the engine and plans with; `values` are the suite's own (root, policy, …)."""
        return Settings(**values)

    def engine(self, settings: Settings) -> ExecutionEngine:
        """A new engine; the suite enters and leaves it."""
        raise NotImplementedError

    def contract(self, command: Sequence[str], **fields: Any) -> ToolContract:
        """A contract that runs `command` where Python and /bin/sh are.

        `fields` are fields of the contract (`parameters`, `artifacts`, `max_output`, …) and of `CommandSpec` (`env`,
        `mounts`, `network`, `memory_limit`, `timeout`, …), and `working_dir`; a container engine's case takes the
        fields of `DaggerEngineSpec` as well.
        """
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """What of this test process's calls still exists outside it (containers, say), a phrase each; processes are
        looked for by the suite itself."""
        return []

    def remove_caches(self, blueprint: Blueprint) -> None:
        """Remove the cache directories of a test's contract: they outlive calls, and engines, on purpose."""

    def python(self, source: str, *words: str, **fields: Any) -> ToolContract:
        """A contract that runs Python source; `sys.argv[1:]` is `words`, then what parameters add."""
        return self.contract([self.python_program, "-c", source, *words], **fields)

    def sh(self, source: str, *words: str, **fields: Any) -> ToolContract:
        """A contract that runs shell source; `$@` is `words`, then what parameters add."""
        return self.contract(["/bin/sh", "-c", source, "sh", *words], **fields)


def parameters(cases: Sequence[EngineCase]) -> list[Any]:
    """The cases as pytest parameters, each with its name and marks."""
    return [pytest.param(case, id=case.name, marks=case.marks) for case in cases]


CALL_LIMIT = 60.0
"""Seconds within which any one call of these tests ends."""
DEADLINES = (1.0, 5.0, 25.0)
"""Seconds for a tool that says something before its deadline: the first is enough, but on a busy machine."""
FOREVER = "import signal; signal.pause()"
"""Python that never ends by itself, and burns nothing meanwhile."""


async def past_its_deadline(run: Callable[[float], Awaitable[ExecutionResult]], begins_with: str) -> ExecutionResult:
    """What a tool's call gives that reaches its deadline, once it has said something.

    On a busy machine a short deadline can come before the tool has begun. Then it gets a longer one.

    Args:
        run: calls the tool with a time limit in seconds.
        begins_with: its output, when it has come as far as it is meant to.
    """
    for seconds in DEADLINES:
        result = await run(seconds)
        if result.output.startswith(begins_with):
            return result
        assert result.timed_out, result
    raise AssertionError(f"its output does not begin with {begins_with!r} within {DEADLINES[-1]:g} s")


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
        """Whether the case lacks what the contract demands; if so, check that the engine refuses it, and says so
        without a call."""
        plan = self.plan(contract, **arguments)
        lacking = plan.demands & self.case.lacks
        if not lacking:
            return False
        with pytest.raises(LimitUnsupported) as refusal:
            await self.run_plan(plan)
        assert all(capability.value in str(refusal.value) for capability in lacking)
        with pytest.raises(ContractError) as finding:
            await self.engine.validate_contract(contract)
        assert all(capability.value in str(finding.value) for capability in lacking)
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


async def check_cache(bench: Bench, contract: ToolContract) -> None:
    """Check that a second call prints what the first one left in a cache, where the engine has caches."""
    if await bench.refuses(contract):
        return
    try:
        assert (await bench.run(contract)).exit_code == 0
        assert (await bench.run(contract)).output == "said\n"
    finally:
        bench.case.remove_caches(bench.plan(contract).blueprint)
