"""Draws the pictures of ARCHITECTURE.md from the imports that the code has: ``--write``, or says whether they are so.

An arrow means "imports". One that follows from others (A → B → C, so A → C) is left out, so that the order shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "ARCHITECTURE.md"
PACKAGE = "praxis_mcp"


def expected(text: str) -> str:
    """The page with the pictures that it should have."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)  # as it is now, whatever was drawn before
    rooms = _drawn(graph, _room)
    engines = _drawn(graph, _engine_part)
    return _replaced(_replaced(text, "rooms", rooms), "engines", engines)


def _room(module: str) -> str | None:
    """The room of a module; None for the public face, which imports on first use."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] not in ("__main__", "testing") else None


def _engine_part(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[1] == "engines" else None


def _drawn(graph: grimp.ImportGraph, part_of: Callable[[str], str | None]) -> str:
    imports: dict[str, set[str]] = {}
    for module in graph.modules:
        part = part_of(module)
        if part is None:
            continue
        found = imports.setdefault(part, set())
        for other in graph.find_modules_directly_imported_by(module):
            target = part_of(other)
            if target is not None and target != part:
                found.add(target)
    lines = ["```mermaid", "flowchart TD"]
    for part in sorted(imports, key=lambda part: (-_depth(imports, part), part)):
        lines += [f"    {part} --> {other}" for other in sorted(_direct(imports, part))]
    return "\n".join([*lines, "```"])


def _direct(imports: dict[str, set[str]], part: str) -> set[str]:
    """What it imports and nothing else that it imports leads to."""
    return imports[part] - {
        other for middle in imports[part] for other in _reached(imports, middle, {part}) if other != middle
    }


def _reached(imports: dict[str, set[str]], start: str, seen: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for other in imports[waiting.pop()] - found - seen:
            found.add(other)
            waiting.append(other)
    return found


def _depth(imports: dict[str, set[str]], part: str) -> int:
    """How many parts lie below it: what imports more stands higher."""
    return len(_reached(imports, part, set()))


def _replaced(text: str, name: str, picture: str) -> str:
    begin, end = f"<!-- {name}: drawn by scripts/draw_architecture.py -->\n", f"<!-- end of {name} -->\n"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        sys.exit(f"{FILE.name} has no place for the picture {name}: {begin.strip()} … {end.strip()}")
    return f"{before}{begin}{picture}\n{end}{after}"


if __name__ == "__main__":
    page = FILE.read_text(encoding="utf-8")
    if "--write" in sys.argv[1:]:
        FILE.write_text(expected(page), encoding="utf-8")
    elif expected(page) != page:
        sys.exit(f"{FILE.name} does not show the imports as they are. Run: python scripts/draw_architecture.py --write")
