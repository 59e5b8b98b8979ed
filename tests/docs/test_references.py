"""What a docstring or comment refers to with "see `name`" is there: modules move, and names change."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_REFERENCE = re.compile(r"\bsee\s+(?:#\s*)?`([A-Za-z_][\w.]*)`", re.IGNORECASE)


def _modules() -> list[Path]:
    return sorted((ROOT / "praxis_mcp").rglob("*.py"))


def _names(module: Path) -> set[str]:
    """What a reference may end with: the module and its folder, and all that it defines or uses."""
    names = {module.stem, module.parent.name}
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.arg(arg=name) | ast.Name(id=name) | ast.Attribute(attr=name):
                names.add(name)
    return names


def _is_there(reference: str, names: set[str], paths: set[str]) -> bool:
    *before, last = reference.removeprefix("praxis_mcp.").split(".")
    if before and any(f"/{'/'.join(before)}/" in path for path in paths):  # a room: what is named lies in it
        return any(path.endswith(f"/{'/'.join([*before, last])}") for path in paths)
    return last in names and all(part in names for part in before)


def test_what_is_referred_to_is_there() -> None:
    modules = _modules()
    names = set().union(*map(_names, modules))
    paths = {str(module.with_suffix("")) for module in modules}
    found = [
        (module.relative_to(ROOT), reference[1])
        for module in modules
        for reference in _REFERENCE.finditer(module.read_text(encoding="utf-8"))
    ]
    assert len(found) > 100, "the pattern finds what it looks for"
    assert [f"{module}: `{name}`" for module, name in found if not _is_there(name, names, paths)] == []
