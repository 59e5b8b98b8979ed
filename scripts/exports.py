"""Writes what type checkers read of ``praxis_mcp/__init__.py`` from the table that Python reads (``--write``), or says
whether the two agree. The table is the one place to add a name to."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "praxis_mcp" / "__init__.py"
BEGIN = "if TYPE_CHECKING:  # written by scripts/exports.py from the table below\n"
END = "\n_MODULES = {\n"


def expected() -> str:
    """The file's text as the table demands it."""
    text = FILE.read_text(encoding="utf-8")
    package = importlib.import_module("praxis_mcp")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{FILE} has no line {BEGIN!r}"
    assert end, f"{FILE} has no line {END.strip()!r}"
    lines = [
        f"    from praxis_mcp.{module} import {name} as {name}\n"
        for module, names in sorted(package._MODULES.items())
        for name in sorted(names, key=_as_ruff_sorts)
    ]
    return before + begin + "".join(lines) + "\n    __version__: str\n" + end + after


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name.lower())


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        FILE.write_text(expected(), encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != expected():
        sys.exit(f"{FILE}: the imports for type checkers differ from the table. Run: python scripts/exports.py --write")
