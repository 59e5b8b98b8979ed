"""What the conformance suite must know of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.plans.model import Blueprint, Capability
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
    """

    name: str
    marks: tuple[pytest.MarkDecorator, ...] = ()
    inexpressible: frozenset[Capability] = frozenset()
    python_program: str = "python3"
    bulk: int = 100_000_000
    mounts_may_change: bool = True

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
