"""One odd schema costs no client the whole list: what is sent is checked by the models of the clients themselves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.contracts.catalog.entries import CatalogEntry, entry_of
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.schemas.schema import is_portable, why_not_sendable
from praxis_mcp.federation.remote_tools import RemoteTool, adapt
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.tools import ToolLister
from praxis_mcp.settings.model import Settings
from tests.kit import mcp1, node, requirements
from tests.kit.environments import PackageUnavailable
from tests.kit.node import NodeProgram

SCRIPT = mcp1.SCRIPTS / "mcp1_strict.py"
LISTED_BY = ("2024-11-05", "2025-06-18", "2025-11-25")

PARTS: dict[str, Any] = {
    "any": True,
    "none": False,
    "items": {"type": "array", "items": True},
    "tuple": {"type": "array", "prefixItems": [True, {"type": "string"}], "items": False},
    "deep": {"type": "object", "properties": {"a": {"anyOf": [True, {"not": False}]}}, "additionalProperties": False},
    "no_choice": {"enum": []},
    "old_id": {"id": "here"},
    "nullable": {"nullable": True},
    "no_null": {"type": ["string", "null"], "nullable": False},
    "number_format": {"type": "integer", "format": "int64"},
    "unknown_format": {"type": "string", "format": "no such thing"},
    "format_bound": {"formatMinimum": "2020-01-01"},
    "dynamic": {"$dynamicRef": "#nowhere"},
    "anchored_twice": {"anyOf": [{"$anchor": "a", "type": "string"}, {"$anchor": "a", "type": "number"}]},
    "lost_anchor": {"$ref": "#nowhere"},
    "half_a_byte": {"$ref": "#/%zz"},
    "inner_id": {"$id": "https://example.org/x", "$defs": {"a": {}}, "$ref": "#/$defs/a"},
    "old_dependencies": {"dependencies": {"a": {"pattern": "(?i)a"}}},
    "old_items": {"additionalItems": {"enum": []}},
}
PATTERNS = (
    "(?i)a", r"\A", r"\z", r"\-", r"\@", r"\_", "^*", r"\b+", "a{,3}", "a**", "a{2}{3}", r"\p{Greek}", r"[\w\-.]+",
    "[a[b]]", "[]a]", "[[:alpha:]]", "(?P<a>b)", "(?x) a", r"\x{41}", "}", "{", "]", "a{2,}", r"^[a-z]{3,5}(?:x|y)*?$",
    r"^\d{4}-\d\d\/\w+\.\s$", r"\p{L}+", "[^/]+", "(?=a)b", r"(a)\1", "é+", "\n", r"\u0041", "(", ")", "[", "*", "a\\",
)  # fmt: skip
PARTS |= {f"pattern_{index}": {"type": "string", "pattern": pattern} for index, pattern in enumerate(PATTERNS)}
PARTS |= {f"names_{index}": {"patternProperties": {pattern: {}}} for index, pattern in enumerate(PATTERNS)}
ROOTS: dict[str, Any] = {
    "array": {"type": "array", "items": True},
    "open": {},
    "several_types": {"type": ["object", "null"]},
    "named": {"$id": "x.v1", "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"},
    "referring": {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}, "b": True}},
    "no_required": {"type": "object", "properties": {}, "required": []},
}


def contracts() -> list[CatalogEntry]:
    entries: list[CatalogEntry] = []
    outputs = {**{name: {"type": "object", "properties": {"result": part}} for name, part in PARTS.items()}, **ROOTS}
    for name, output in outputs.items():
        inputs = {"type": "object", "properties": {"x": PARTS[name]}} if name in PARTS else {}
        for parameters in (inputs, {}):  # what no parameter may have can still be in an output
            contract = {"name": name, "description": "Odd.", "engine": "local", "command": ["true"], "output": "json"}
            loaded = load_text(yaml.safe_dump({**contract, "parameters": parameters, "output_schema": output}))
            if loaded.contract is not None:
                entries.append(entry_of(loaded.contract, Path(f"{name}.yaml"), "0", ()))
                break
    assert {"any", "none", "deep", "no_choice", "old_id", "nullable", "pattern_0", *ROOTS} <= {e.name for e in entries}
    return entries


def upstream_tools() -> list[RemoteTool]:
    schemas = {**{name: {"type": "object", "properties": {"result": part}} for name, part in PARTS.items()}, **ROOTS}
    schemas |= {"dangling": {"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}}}
    raws = [{"name": name, "inputSchema": schema, "outputSchema": schema} for name, schema in schemas.items()]
    return [adapt(raw, "up", f"up_{raw['name']}", None) for raw in raws]


@pytest.fixture(scope="module")
def sent() -> list[dict[str, Any]]:
    """Every odd tool as it is listed for each revision."""
    entries = sorted((*contracts(), *upstream_tools()), key=lambda entry: entry.name)
    settings = Settings.model_validate({"server": {"page_size": 1000}})
    tools: list[dict[str, Any]] = []
    for version in LISTED_BY:
        page = ToolLister(settings).page(entries, None, Dialect(version))
        assert len(page.tools) == len(entries)
        for tool in page.tools:
            shown = tool.model_dump(by_alias=True, mode="json", exclude_none=True)
            tools.append({**shown, "name": f"{tool.name}@{version}"})
    return tools


@pytest.mark.node
def test_the_typescript_sdk_loses_no_list(
    node_programs: Callable[[Callable[[], NodeProgram]], NodeProgram], sent: list[dict[str, Any]]
) -> None:
    done = node_programs(node.typescript_strict).run(text=json.dumps(sent))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


@pytest.mark.mcp1
def test_version_1_of_the_python_sdk_loses_no_list(sent: list[dict[str, Any]]) -> None:
    try:
        python = mcp1.python()
    except PackageUnavailable as exc:
        requirements.give_up("mcp1", str(exc))
        raise
    done = subprocess.run(
        [str(python), str(SCRIPT)], input=json.dumps(sent), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


def test_ordinary_output_schemas_are_sent_as_they_are() -> None:
    schema = {
        "type": "object",
        "$defs": {"a/b": {"$anchor": "here", "type": ["string", "null"], "enum": ["x", None]}},
        "properties": {
            "one": {"$ref": "#/$defs/a~1b"},
            "two": {"$ref": "#here"},
            "all": {"type": "array", "items": {"$ref": "#"}, "uniqueItems": True},
            "day": {"type": "string", "format": "date", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
            "maybe": {"type": "string", "nullable": True},
        },
        "patternProperties": {"^x-[a-z_.]+$": {}},
    }
    assert why_not_sendable(schema) is None


@pytest.mark.parametrize("pattern", ["^[a-z]{3,5}(?:x|y)*?$", r"^\d+(\.\d+)?$", r"[\w\-.]+@[^\s/]+", "", "é", r"\\"])
def test_ordinary_patterns_are_portable(pattern: str) -> None:
    assert is_portable(pattern)


def test_a_contract_whose_output_schema_is_sent_open_is_warned_of() -> None:
    loaded = load_text(
        "name: a\ndescription: b\nengine: local\ncommand: [c]\noutput: json\n"
        "output_schema: {type: object, properties: {x: {type: string, pattern: '(?i)x'}}}\n"
    )
    assert loaded.contract is not None
    (warning,) = loaded.diagnostics
    assert '"(?i)x"' in warning.message
    assert warning.field == "output_schema"
