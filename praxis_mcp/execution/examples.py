"""Examples in contracts, run as tests."""

from __future__ import annotations

import json
from dataclasses import dataclass

from praxis_mcp.contracts.model import Example, ToolContract
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.outcomes import describe_end
from praxis_mcp.errors import PraxisError
from praxis_mcp.execution.outputs import structured_output
from praxis_mcp.execution.runner import ToolRunner


@dataclass(frozen=True, slots=True)
class ExampleOutcome:
    """How one example went: `problems` is empty when it did what it says."""

    tool: str
    example: str
    problems: tuple[str, ...]
    engine: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the tool did what the example says."""
        return not self.problems


async def run_example(runner: ToolRunner, contract: ToolContract, number: int) -> ExampleOutcome:
    """Run the contract's example with that index (from 0)."""
    example = contract.examples[number]
    title = example.name or f"example {number + 1}"
    try:
        result = await runner.call(contract.name, example.arguments)
    except PraxisError as exc:
        return ExampleOutcome(contract.name, title, (str(exc),))
    return ExampleOutcome(contract.name, title, _problems(contract, example, result), result.engine, result.duration)


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
