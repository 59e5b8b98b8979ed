"""Whether a tool does what its contract promises: its output is the JSON that it declares and fits the output schema,
and its examples go as they say."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import anyio.to_thread
import pydantic_core

from praxis_mcp.contracts.model import Example, ToolContract
from praxis_mcp.contracts.problems import sentence
from praxis_mcp.contracts.schemas.schema import check_output
from praxis_mcp.contracts.schemas.validators import CheckFailed, compile_schema, find_errors
from praxis_mcp.engines.base import ExecutionResult, RemoteContent
from praxis_mcp.engines.outcomes import describe_end
from praxis_mcp.errors import ContractError, OutputMisfit, PraxisError
from praxis_mcp.execution.runner import ToolRunner
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.support.logs import logger
from praxis_mcp.support.text import NOT_FINITE, all_finite, counted
from praxis_mcp.support.workers import compute, size_of_json

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
        size = size_of_json(content.structured)
        if not await compute(all_finite, content.structured, size=size):
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
            errors = await compute(find_errors, validator, content.structured, _owner(tool), size=size)
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


@dataclass(frozen=True, slots=True)
class ExampleOutcome:
    """How one example went.

    Attributes:
        tool: its name.
        example: the example's title.
        problems: what went otherwise than the example says; empty when it did what it says.
        engine: which ran it; empty where none did.
        seconds: how long it took.
        is_error: whether the call was refused, or could not be carried out, so that there is nothing to compare.
    """

    tool: str
    example: str
    problems: tuple[str, ...]
    engine: str = ""
    seconds: float = 0.0
    is_error: bool = False

    @property
    def passed(self) -> bool:
        """Whether the tool did what the example says."""
        return not self.problems


def tests_of(contract: ToolContract) -> dict[int, Example]:
    """The examples that are run, by their index."""
    return {number: example for number, example in enumerate(contract.examples) if example.run}


async def run_example(runner: ToolRunner, contract: ToolContract, number: int) -> ExampleOutcome:
    """Run the contract's example with that index (from 0)."""
    began = time.monotonic()
    answer: ExecutionResult | PraxisError
    try:
        answer = await runner.call(contract.name, contract.examples[number].arguments)
    except PraxisError as exc:
        answer = exc
    return judge_example(contract, number, answer, time.monotonic() - began)


def judge_example(
    contract: ToolContract, number: int, answer: ExecutionResult | PraxisError, seconds: float
) -> ExampleOutcome:
    """Whether the answer to a call by that example is what the example says.

    Args:
        contract: the tool's.
        number: index of the example, from 0.
        answer: the result, or why there is none.
        seconds: how long the call took, where it has no result that says so.
    """
    example = contract.examples[number]
    title = example.name or f"example {number + 1}"
    if isinstance(answer, PraxisError):
        return ExampleOutcome(contract.name, title, (str(answer),), seconds=seconds, is_error=True)
    return ExampleOutcome(contract.name, title, _problems(contract, example, answer), answer.engine, answer.duration)


def _problems(contract: ToolContract, example: Example, result: ExecutionResult) -> tuple[str, ...]:
    found: list[str] = []
    if result.success and contract.output == "json":
        try:
            structured_output(contract, result)
        except PraxisError as exc:
            found.append(str(exc))
    output = result.output
    if result.exit_code != example.expect_exit or result.timed_out:
        errors = result.stderr.text.strip()[-300:]
        found.append(
            f"{describe_end(result)}, not exit code {example.expect_exit}" + (f"; stderr: {errors}" if errors else "")
        )
    if example.expect is not None and output.strip() != example.expect.strip():
        found.append(f"printed {output.strip()[:300]!r}, not {example.expect.strip()[:300]!r}")
    found += [
        f"{piece!r} is not in {output.strip()[:300]!r}" for piece in example.expect_contains if piece not in output
    ]
    if example.expect_json is not None:
        try:
            value = json.loads(output)
        except ValueError:
            found.append(f"printed no JSON: {output.strip()[:300]!r}")
        else:
            if value != example.expect_json:
                found.append(f"printed {output.strip()[:300]}, not {json.dumps(example.expect_json)[:300]}")
    return tuple(found)
