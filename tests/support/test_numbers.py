"""A number that Python reads as an infinity is refused where it comes in, and never sent on as null."""

import json
from pathlib import Path

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.output import Captured
from praxis_mcp.errors import OutputMisfit
from praxis_mcp.execution.outputs import structured_output
from praxis_mcp.serving.mcp.progress import MAX_PROGRESS, parse_progress
from praxis_mcp.support.numbers import all_finite


@pytest.mark.parametrize("text", ['{"a": 1e999}', "[[-1e999]]", "1e400"])
def test_output_with_such_a_number_is_not_json(text: str) -> None:
    contract = ToolContract.create_local_tool("t", ["x"], output="json")
    stdout = Captured(head=text.encode(), total=len(text))
    with pytest.raises(OutputMisfit, match="1e999"):
        structured_output(contract, ExecutionResult("1", "local", "none", 0, stdout=stdout))
    assert not all_finite(json.loads(text))


def test_every_other_value_is_finite_however_deep() -> None:
    deep: object = 1.5e308
    for _ in range(100_000):
        deep = [deep]
    assert all_finite(deep)
    while isinstance(deep, list):  # freed level by level: Python's own way would recurse
        deep = deep.pop()
    assert all_finite({"a": [1, 10**400, "1e999", None, True, 0.0]})


def test_a_contract_in_json_cannot_hold_such_a_number() -> None:
    document = (
        '{"name": "t", "image": "x", "command": ["x"], "parameters": {"a": {"type": "number", "default": 1e999}}}'
    )
    loaded = load_text(document, Path("contract.json"))
    assert loaded.contract is None
    assert "too large a number" in loaded.diagnostics[0].message


@pytest.mark.parametrize("number", ["1.7976931348623157e308", "1e999", str(2**53 + 2)])
def test_progress_beyond_what_floats_count_is_not_progress(number: str) -> None:
    assert parse_progress(f'{{"progress": {number}}}') is None
    assert parse_progress(f'{{"progress": {int(MAX_PROGRESS)}}}') == (MAX_PROGRESS, None, "")
