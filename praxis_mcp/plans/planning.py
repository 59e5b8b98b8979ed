"""Plans made from the event loop: what looks at files, or asks a keyring, does so in a worker thread, bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.errors import ExecutionTimeout, PraxisError
from praxis_mcp.plans.build import build_plan, check_mounts, find_problems, needs_io
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings

PLANNING_TIMEOUT = 15.0
"""Seconds that looking at the files and secrets of one contract may take: a network file system can hang for ever."""

T = TypeVar("T")


async def plan_call(
    contract: ToolContract,
    arguments: Mapping[str, Any],
    settings: Settings,
    run_id: str = "",
    caller: str = "",
    *,
    create: bool = False,
) -> Plan:
    """As `build_plan`, but never blocks the event loop.

    Raises:
        ExecutionTimeout: a file or the keyring did not answer; and whatever `build_plan` raises.
    """
    make = partial(build_plan, contract, arguments, settings, run_id, caller, create=create)
    return await _in_thread(make, contract.name) if needs_io(contract) else make()


async def check_again(plan: Plan, settings: Settings) -> Plan:
    """The plan with its mounts checked once more, see `check_mounts`; for a call that has waited.

    Raises:
        ExecutionTimeout: a file system did not answer; and whatever `check_mounts` raises.
    """
    fixed = plan.blueprint
    if not fixed.mounts and fixed.working_dir is None:
        return plan
    checked = await _in_thread(partial(check_mounts, fixed, settings, create=True), fixed.tool)
    return plan if checked is fixed else replace(plan, blueprint=checked)


async def find_all_problems(contract: ToolContract, settings: Settings) -> list[PraxisError]:
    """As `find_problems`, but never blocks the event loop.

    Raises:
        ExecutionTimeout: a file system did not answer.
    """
    return await _in_thread(partial(find_problems, contract, settings), contract.name)


async def find_findings(contract: ToolContract, settings: Settings) -> list[Diagnostic]:
    """As `find_mount_findings`, but never blocks the event loop.

    Raises:
        ExecutionTimeout: a file system did not answer.
    """
    from praxis_mcp.plans.mount_findings import find_mount_findings  # reads the contract's file: with YAML

    find = partial(find_mount_findings, contract, settings)
    return await _in_thread(find, contract.name) if needs_io(contract) else find()


async def _in_thread(work: Callable[[], T], tool: str) -> T:
    try:
        with anyio.fail_after(PLANNING_TIMEOUT):
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except TimeoutError as exc:
        raise ExecutionTimeout(
            f"Looking at the mounts and secrets of {tool} took longer than {PLANNING_TIMEOUT:g} s.",
            remedy="See whether a network file system, or the keyring, hangs.",
        ) from exc
