"""Writes the table of docs/checks.md from that of the code (``--write``), or says whether the two agree."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "checks.md"
BEGIN = "<!-- checks: the table in praxis_mcp/checks/table.py -->\n"
END = "<!-- end of checks -->\n"


def expected() -> str:
    """The page's text as the code demands it."""
    from praxis_mcp.checks.table import CHECKS

    before, begin, rest = FILE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{FILE} has no {BEGIN}{END}"
    rows = ["| check | level | finds | because | met in |", "|---|---|---|---|---|"]
    for code, check in CHECKS.items():
        repository, _, number = check.source.partition("#")
        met = f"[{check.source}](https://github.com/{repository}/issues/{number})" if check.source else ""
        rows.append(f"| `{code}` | {check.severity.value} | {check.finds} | {check.why} | {met} |")
    return before + begin + "\n".join(rows) + "\n" + end + after


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    text = expected()
    if "--write" in sys.argv[1:]:
        FILE.write_text(text, encoding="utf-8")
    elif text != FILE.read_text(encoding="utf-8"):
        sys.exit("docs/checks.md is not what praxis_mcp/checks/table.py says: scripts/checks_table.py --write")
