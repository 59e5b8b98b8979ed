"""The site of the documentation: its pages are there, and what they lead to, and the made ones say all there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from praxis_mcp.settings.model import Settings
from scripts.lay_out_site import lay_out
from scripts.reference import PAGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The laid out pages."""
    place = tmp_path_factory.mktemp("site") / "docs"
    lay_out(place)
    return place


def test_every_link_of_a_page_leads_to_a_file_of_the_site(site: Path) -> None:
    broken, seen = [], 0
    for page in site.glob("*.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text):
            seen += 1
            if not (page.parent / link).is_file():
                broken.append(f"{page.name}: {link}")
    assert seen > 100
    assert broken == []


def test_every_page_is_in_the_menu_and_everything_in_the_menu_is_a_page(site: Path) -> None:
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = re.findall(r"[\w-]+\.md", str(menu))
    assert sorted(named) == sorted(page.name for page in site.glob("*.md"))


def test_no_page_of_docs_is_lost(site: Path) -> None:
    kept = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {page.name for page in site.glob("*.md")} > kept


@pytest.mark.parametrize("name", PAGES)
def test_each_setting_key_and_option_is_explained(name: str) -> None:
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|(.*)\|$", PAGES[name](), re.MULTILINE)
    assert len(rows) > 40
    assert [setting for setting, kind, meaning in rows if not meaning.strip() and "a section" not in kind] == []


def test_every_setting_is_on_the_page_of_settings() -> None:
    text = PAGES["settings"]()
    for name in Settings.model_fields:
        assert f"| `{name}` |" in text
    assert "| `max_concurrency` |" in text, "of a section"
    assert "| `issuer` |" in text, "of a section in a section in a map"
