"""Standard output of tools that declare `output: json` → a value that fits their schema, or why there is none."""

from __future__ import annotations

from typing import Any

import pydantic_core

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.schemas.schema import check_output
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.errors import OutputMisfit
from praxis_mcp.support.numbers import NOT_FINITE, all_finite
from praxis_mcp.support.wording import counted

_BOM = b"\xef\xbb\xbf"


def structured_output(contract: ToolContract, result: ExecutionResult) -> Any:
    """The value that a successful run wrote.

    Raises:
        OutputMisfit: it was cut, is no JSON, or does not fit the contract's output schema.
        ContractError: the contract's output schema is invalid.
    """
    stdout = result.stdout
    if stdout.omitted:
        raise OutputMisfit(
            f"{contract.name} wrote {counted(stdout.total, 'byte')} of JSON, more than the {len(stdout.data)} that a "
            "result can carry, and cut JSON is no JSON.",
            remedy="Ask for less in one call, or have the contract's max_output raised.",
        )
    try:
        value = pydantic_core.from_json(stdout.data.removeprefix(_BOM), allow_inf_nan=False)
        if not all_finite(value):
            raise ValueError(f"it {NOT_FINITE}")
    except ValueError as exc:
        reason = "it wrote nothing" if not stdout.data.strip() else str(exc)
        raise OutputMisfit(
            f"{contract.name} ended well, but its standard output is not the JSON it declares: {reason}."
        ) from exc
    check_value(contract, value)
    return value


def check_value(contract: ToolContract, value: Any) -> None:
    """Check a value against the contract's output schema.

    Raises:
        OutputMisfit: it does not fit.
        ContractError: the schema is invalid.
    """
    if not all_finite(value):
        raise OutputMisfit(f"{contract.name} ended well, but its output {NOT_FINITE}.")
    if problems := check_output(contract, value):
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise OutputMisfit(f"{contract.name} ended well, but its output does not fit its output_schema:\n{listed}")
