"""The package as modules: each of a size that can be read at once, and engines' folders that the import rules know."""

from __future__ import annotations

import tomllib
from pathlib import Path

from praxis_mcp.engines.registry import ENGINES

ROOT = Path(__file__).parents[1]


def test_a_module_is_neither_a_scrap_nor_a_heap() -> None:
    """But those whose names Python gives."""
    files = [file for file in (ROOT / "praxis_mcp").rglob("*.py") if not file.stem.startswith("__")]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert len(lengths) > 200
    assert not {name: length for name, length in lengths.items() if not 25 <= length <= 450}


def test_the_import_rules_know_every_engine() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    rules = {rule["type"]: rule for rule in tool["importlinter"]["contracts"]}
    modules = {entry.partition(":")[0] for entry in ENGINES.values()}
    folders = {module.rpartition(".")[0] for module in modules} - {"praxis_mcp.engines"}
    assert set(rules["protected"]["protected_modules"]) == folders
    single = {module for module in modules if module.rpartition(".")[0] not in folders}
    assert set(rules["independence"]["modules"]) == folders | single
    # Of another room, an engine's folder is known by its engine alone.
    seen = {line.rpartition(" -> ")[2] for line in rules["protected"]["ignore_imports"]}
    assert seen <= modules
