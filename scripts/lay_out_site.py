"""Lays out the pages of the site: those of docs/, those from outside, those made from the code, and what they lead to.

Usage: ``python -m scripts.lay_out_site DIRECTORY``. Links are those of the checkout, where readers follow them, too:
each is turned to where its file is on the site. mkdocs.yml says how the site is made of the directory.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.reference import PAGES as MADE

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE: Mapping[str, str] = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "ARCHITECTURE.md": "architecture.md",
    "native/FRAMING.md": "framing.md",
    "docs/README.md": "pages.md",
}
"""Pages that are elsewhere in the checkout, and where they are on the site."""
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
_KIND = re.compile(r"^(```\w+) .*$", re.MULTILINE)
"""What tests call a block of code besides its language, which only GitHub's Markdown lets stand there."""
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def lay_out(place: Path) -> None:
    """Write all of it into a directory; what was in it is gone."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT / "docs", place)
    (place / "README.md").unlink()
    for source in {*OUTSIDE, *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))}:
        _write(place, source, (ROOT / source).read_text(encoding="utf-8"))
    for name, make in MADE.items():
        _write(place, f"docs/{name}.md", make())


def _write(place: Path, source: str, text: str) -> None:
    """Write a page, and copy the files that it leads to, except pages."""
    here = _on_site(source)

    def turned(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        there = _on_site(target)
        if not (place / there).exists() and target not in OUTSIDE and (ROOT / target).is_file():
            (place / there).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / target, place / there)
        return posixpath.relpath(there, posixpath.dirname(here) or ".") + (link[2] or "")

    # Code is not looked at: every second piece.
    pieces = _FENCED.split(text)
    pieces[::2] = [_LINK.sub(turned, piece) for piece in pieces[::2]]
    (place / here).write_text(_KIND.sub(r"\1", "".join(pieces)), encoding="utf-8")


def _on_site(file: str) -> str:
    """Where a file of the checkout is on the site."""
    return OUTSIDE.get(file) or ("pages.md" if file == "docs" else file.removeprefix("docs/"))


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
