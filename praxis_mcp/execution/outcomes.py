"""How a call ended, in a word: as it is counted, logged and recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from praxis_mcp.errors import ArgumentError, PraxisError, QueueFull, RunCancelled

if TYPE_CHECKING:
    from praxis_mcp.engines.base import ExecutionResult

RecordedOutcome = Literal[
    "ok", "failed", "timed_out", "out_of_memory", "cached", "error", "cancelled", "lost", "running"
]
"""What a record says of a run: ``lost`` where its server died before it ended."""
OUTCOMES: tuple[RecordedOutcome, ...] = get_args(RecordedOutcome)
RUNNING, LOST = "running", "lost"


def outcome_of(result: ExecutionResult) -> str:
    """How a call with a result ended."""
    if "cache" in result.phases:
        return "cached"
    if result.timed_out:
        return "timed_out"
    if result.out_of_memory:
        return "out_of_memory"
    return "ok" if result.success else "failed"


def refusal_of(error: PraxisError) -> str:
    """How a call without a result ended: ``bad_arguments``, ``refused`` (too many), ``cancelled`` or ``error``."""
    if isinstance(error, ArgumentError):
        return "bad_arguments"
    if isinstance(error, RunCancelled):
        return "cancelled"
    return "refused" if isinstance(error, QueueFull) else "error"
