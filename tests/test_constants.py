"""A name means one thing: constants of one name have one value, whichever module they stand in."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "praxis_mcp"


def is_number(node: ast.expr) -> bool:
    """Whether it is a number, or arithmetic with one."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and not isinstance(node.value, bool)
    if isinstance(node, ast.BinOp):
        return is_number(node.left) or is_number(node.right)
    return isinstance(node, ast.UnaryOp) and is_number(node.operand)


def constants(file: Path) -> Iterator[tuple[str, str]]:
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and is_number(node.value):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and target.id.isupper():
                    yield target.id.lstrip("_"), ast.unparse(node.value)


def test_a_wait_or_bound_of_one_name_has_one_value_in_all_modules() -> None:
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for file in PACKAGE.rglob("*.py"):
        for name, value in constants(file):
            found[name][str(file.relative_to(PACKAGE))] = value
    assert "WAITER_MAX_AGE" in found
    ambiguous = {name: places for name, places in found.items() if len(set(places.values())) > 1}
    assert not ambiguous, "rename each so that it says which wait or bound it is, or share one"
