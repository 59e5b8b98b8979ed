"""ARCHITECTURE.md, CONTRIBUTING.md and the index of docs/ are true of the tree: files, classes, links, pictures."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from scripts import draw_architecture

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "praxis_mcp"
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def files(text: str) -> list[str]:
    """Files and folders that stand in backquotes."""
    return re.findall(r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|c|h|md|sh|yaml|txt))?)`", text)


def headings(text: str) -> set[str]:
    """Addresses of a page's sections, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("text", [ARCHITECTURE, CONTRIBUTING], ids=["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_that_the_page_names_exist(text: str) -> None:
    named = files(text)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()] == []


def test_classes_that_the_architecture_names_exist() -> None:
    defined = {
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)(?:\.\w+)?`", ARCHITECTURE))
    assert len(named) > 5
    assert named - defined == set()


def test_the_table_of_rooms_is_the_order_that_imports_are_held_to() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(rule["layers"] for rule in config["tool"]["importlinter"]["contracts"] if rule["type"] == "layers")
    rows = re.findall(r"^\| `(\w+)/?` \|", ARCHITECTURE, re.MULTILINE)
    assert rows == list(layers)


def test_the_pictures_show_the_imports_as_they_are() -> None:
    assert draw_architecture.expected(ARCHITECTURE) == ARCHITECTURE, "run python scripts/draw_architecture.py --write"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_sections_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, section = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not section or section in headings(file.read_text(encoding="utf-8")), target


def test_every_page_of_the_documentation_is_in_its_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w.]+)\)", index))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"docs/README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} <= set(re.findall(r"\]\(([\w./]+)\)", readme))


def test_the_markers_that_contributing_names_are_those_of_the_tests() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    markers = {line.partition(":")[0] for line in config["tool"]["pytest"]["ini_options"]["markers"]}
    (named,) = re.findall(r"with its marker \(([^)]*)\)", CONTRIBUTING)
    assert set(re.findall(r"`(\w+)`", named)) == markers


def test_every_target_of_make_that_the_pages_show_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"(?:^\$ .*?|`)\bmake ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"
