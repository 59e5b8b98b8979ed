"""Whether what a tool returned is the JSON that it declares, and fits the output schema that it promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import anyio.to_thread
import pydantic_core

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.problems import sentence
from praxis_mcp.contracts.schemas.schema import check_output
from praxis_mcp.contracts.schemas.validators import CheckFailed, compile_schema, find_errors
from praxis_mcp.engines.base import ExecutionResult, RemoteContent
from praxis_mcp.errors import ContractError, OutputMisfit
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.support.logs import logger
from praxis_mcp.support.text import NOT_FINITE, all_finite, counted

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_BOM = b"\xef\xbb\xbf"


def structured_output(contract: ToolContract, result: ExecutionResult) -> Any:
    """The value that a successful run wrote.

    Raises:
        OutputMisfit: it was cut, is not JSON, or does not fit the contract's output schema.
        ContractError: the contract's output schema is invalid.
    """
    stdout = result.stdout
    if stdout.omitted:
        raise OutputMisfit(
            f"{contract.name} wrote {counted(stdout.total, 'byte')} of JSON, more than the {len(stdout.data)} that a "
            "result can carry, and cut JSON is not JSON.",
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


class OutputChecks:
    """Checks answers. An answer that cannot be checked counts as one that fits: the tool is not to blame, and its
    client may be able to check it."""

    def __init__(self) -> None:
        self._validators: WeakKeyDictionary[RemoteTool, Validator | None] = WeakKeyDictionary()

    async def misfit(self, tool: RemoteTool, content: RemoteContent) -> str | None:
        """What is wrong with an answer of a call that ended well, as the end of a sentence; None where nothing is."""
        if not all_finite(content.structured):
            return f"its structured content {NOT_FINITE}"
        if tool.output_schema is None:
            return None
        if content.structured is None:
            return "sent no structured content, although its output schema promises some"
        if tool not in self._validators:
            # Milliseconds for a small schema, a second for the largest: not on the event loop, and not in every call.
            self._validators[tool] = await anyio.to_thread.run_sync(self._compiled, tool)
        validator = self._validators[tool]
        if validator is None:
            return None
        try:
            errors = find_errors(validator, content.structured, _owner(tool))
        except CheckFailed as exc:
            logger.debug("an answer of {} is passed on unchecked: it {}", tool.name, exc)
            return None
        except ContractError as exc:
            self._validators[tool] = None
            _log_unchecked(tool, exc)
            return None
        if not errors:
            return None
        return f"its structured content does not fit its output schema ({sentence(errors[0], root='the output')})"

    def _compiled(self, tool: RemoteTool) -> Validator | None:
        try:
            return compile_schema(tool.output_schema or {}, _owner(tool))
        except ContractError as exc:
            _log_unchecked(tool, exc)
            return None


def _owner(tool: RemoteTool) -> str:
    return f"The output schema of {tool.name}"


def _log_unchecked(tool: RemoteTool, exc: ContractError) -> None:
    logger.warning("answers of {} are passed on unchecked: {}", tool.name, exc.message)
