"""`execution` and `retry`: whether a call is answered with a task, and whether that may be run again."""

from __future__ import annotations

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.loading import load_text

OURS = "name: t\ndescription: d\nengine: local\ncommand: [x]\n"
OLDER = "name: t\ndescription: d\nengine: local\n{}: {{command: [x]}}\n{}"


def contract_of(text: str) -> ToolContract:
    loaded = load_text(text)
    assert loaded.contract is not None, loaded.diagnostics
    return loaded.contract


@pytest.mark.parametrize(
    "text",
    [OURS, OLDER.format("engineSpec", "params: {}\n"), OLDER.format("engine_spec", "parameters: {}\n")],
    ids=["ours", "engineSpec", "engine_spec"],
)
def test_every_spelling_says_how_calls_are_answered(text: str) -> None:
    plain, task = contract_of(text), contract_of(text + "execution: task\nretry: safe\n")
    assert (plain.execution, plain.retry) == ("call", "never")
    assert (task.execution, task.retry) == ("task", "safe")


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("retry: safe\n", "Write execution: task or optional with retry: safe"),
        ("execution: tsk\n", "task"),
        ("execution: task\nretry: safe\nparameters:\n  key: {type: string, format: password}\n", "must not be kept"),
        ("execution: task\nretry: safe\nparameters:\n  key: {type: string, writeOnly: true}\n", "must not be kept"),
    ],
)
def test_what_cannot_be_meant_is_an_error(more: str, found: str) -> None:
    loaded = load_text(OURS + more)
    assert loaded.contract is None
    assert any(found in f"{item.message} {item.remedy}" for item in loaded.diagnostics), loaded.diagnostics
