"""Answers of upstreams' tools are checked against schemas that are compiled once, off the event loop."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from praxis_mcp.contracts.schemas.validators import compile_schema
from praxis_mcp.engines.base import RemoteContent
from praxis_mcp.execution import result_checks
from praxis_mcp.execution.result_checks import OutputChecks
from praxis_mcp.federation.remote_tools import RemoteTool, adapt

pytestmark = pytest.mark.anyio


def tool(schema: dict[str, Any]) -> RemoteTool:
    return adapt({"name": "x", "inputSchema": {"type": "object"}, "outputSchema": schema}, "up", "up_x", None)


def answer(value: Any) -> RemoteContent:
    return RemoteContent((), value, {})


NAME = {"type": "object", "properties": {"name": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}


async def test_a_schema_is_compiled_once_however_many_calls_there_are_and_not_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []

    def noted(schema: Any, owner: str) -> Any:
        threads.append(threading.get_ident())
        return compile_schema(schema, owner)

    monkeypatch.setattr(result_checks, "compile_schema", noted)
    checks, checked = OutputChecks(), tool(NAME)
    for _ in range(3):
        assert await checks.misfit(checked, answer({"name": "Ada"})) is None
    assert "does not fit its output schema" in (await checks.misfit(checked, answer({"name": 7})) or "")
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(?!x)"}}},
        {"type": "object", "properties": {"name": {"$ref": "#/$defs/nowhere"}}},
        {"type": "object", "properties": {"name": {"type": "string", "pattern": "^.{0,100000}$"}}},
    ],
    ids=["look-ahead", "dangling", "too large"],
)
async def test_a_schema_that_cannot_be_used_here_lets_every_answer_pass(schema: dict[str, Any]) -> None:
    checks, checked = OutputChecks(), tool(schema)
    for _ in range(2):
        assert await checks.misfit(checked, answer({"name": "Ada"})) is None


async def test_an_answer_too_deep_to_be_checked_passes() -> None:
    checks = OutputChecks()
    schema = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    value: dict[str, Any] = {}
    for _ in range(5000):
        value = {"a": value}
    assert await checks.misfit(tool(schema), answer(value)) is None
