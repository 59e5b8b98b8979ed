"""What a model reads of a tool can be seen by whoever reviews its contract, or approves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.contracts.catalog.entries import entry_of
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.vocabulary import find_odd_texts, with_visible_texts
from praxis_mcp.federation.remote_tools import Unusable, adapt
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.tools import ToolLister
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.text import unseen

HIDDEN = "Adds.\u202e\u200b\U000e0041\x1b[8m now"
SHOWN = "Adds.\\u202e\\u200b\\U000e0041\\x1b[8m now"
CONTRACT = f"""
name: t
title: "{SHOWN}"
description: "{SHOWN}\\nTwo lines."
image: busybox
command: [x]
output: json
output_schema: {{type: object, description: "{SHOWN}"}}
parameters:
  text: {{type: string, description: "{SHOWN}"}}
  kind: {{type: string, enum: ["a", "b\\u200b", "\\x1f"]}}
  "na\\u200bme": {{type: string, bind: stdin}}
"""


def sent_text(value: Any) -> list[str]:
    """Every text in what is sent."""
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in sent_text(item))]
    if isinstance(value, list):
        return [text for item in value for text in sent_text(item)]
    return [value] if isinstance(value, str) else []


def test_every_text_of_a_contract_that_holds_what_cannot_be_seen_is_reported() -> None:
    loaded = load_text(CONTRACT, Path("/tools/t/contract.yaml"))
    assert loaded.contract is not None
    found = {item.field: item for item in loaded.diagnostics if "cannot be seen" in item.message}
    assert found.keys() == {
        "title",
        "description",
        "output_schema.description",
        "parameters.text.description",
        "parameters.kind.enum[1]",
        "parameters.na\u200bme",
    }
    assert not any(item.is_error for item in found.values())
    assert found["description"].line == 4
    assert "\\u202e, \\u200b, \\U000e0041, \\x1b" in found["description"].message


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_a_model_is_sent_what_its_contracts_reviewer_sees(version: str) -> None:
    contract = load_text(CONTRACT, Path("/tools/t/contract.yaml")).contract
    assert contract is not None
    entry = entry_of(contract, Path("/tools/t/contract.yaml"), "", ())
    tool = ToolLister(Settings()).page([entry], None, Dialect(version)).tools[0]
    assert (tool.title, tool.description) == (SHOWN, f"{SHOWN}\nTwo lines.")
    assert tool.input_schema["properties"]["text"]["description"] == SHOWN
    assert tool.output_schema is not None
    assert tool.output_schema["description"] == SHOWN


def test_descriptions_of_an_upstream_show_what_is_hidden_in_them() -> None:
    schema = {
        "type": "object",
        "properties": {
            "description": {"type": "string", "description": HIDDEN},
            "list": {"type": "array", "items": {"title": HIDDEN}, "x-of-others": [{"description": HIDDEN}]},
        },
    }
    raw = {"name": "add", "title": HIDDEN, "description": HIDDEN, "inputSchema": schema, "outputSchema": schema}
    tool = adapt(raw, "up", "up_add", None)
    assert (tool.title, tool.description) == (SHOWN, SHOWN)
    assert tool.output_schema is not None
    for part in (tool.input_schema, tool.output_schema):
        assert [text for text in sent_text(part) if unseen(text)] == []
        assert part["properties"]["list"]["x-of-others"] == [{"description": SHOWN}]
    assert schema["properties"]["description"]["description"] == HIDDEN, "what it said is left as it was"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"na\u200bme": {}}},
        {"properties": {"a": {"enum": ["x\U000e0041"]}}},
        {"properties": {"a": {"default": {"b": ["\u2066"]}}}},
        {"properties": {"a": {"pattern": "a\u202e"}}},
        {"x-of-others": "\u2063"},
    ],
)
def test_a_tool_of_an_upstream_whose_names_or_values_cannot_be_seen_is_not_served(schema: dict[str, Any]) -> None:
    for part in ("inputSchema", "outputSchema"):
        raw = {"name": "add", "inputSchema": {"type": "object"}, part: {"type": "object", **schema}}
        with pytest.raises(Unusable, match=rf"name or value in its {part} holds characters that cannot be seen: \\"):
            adapt(raw, "up", "up_add", None)


def test_separators_and_text_of_any_script_are_accepted() -> None:
    schema = {
        "properties": {"größe": {"enum": ["\x1f", "\t", "\n", "日本"], "description": "Ein Text\nin é, ❤\ufe0f"}},
        "title": "a\tb",
    }
    assert list(find_odd_texts(schema)) == []
    assert with_visible_texts(schema) == schema


def test_a_schema_of_any_depth_is_worded() -> None:
    schema: dict[str, Any] = {"description": HIDDEN}
    for _ in range(5000):
        schema = {"not": schema}
    inner = with_visible_texts(schema)
    while "not" in inner:
        inner = inner["not"]
    assert inner == {"description": SHOWN}
    assert len(list(find_odd_texts(schema))) == 1
