"""SECURITY.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
FILES = sorted(set(re.findall(r"\btests/[\w/]+\.py\b", TEXT)))
NAMES = sorted(set(re.findall(r"`(test_\w+)`", TEXT)))


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_tests_that_the_document_names_exists(file: str) -> None:
    assert (ROOT / file).is_file()


def test_every_test_that_the_document_names_exists() -> None:
    defined = {
        name
        for path in (*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "praxis_mcp" / "testing").glob("*.py"))
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(NAMES) > 20
    assert set(NAMES) - defined == set()


def test_links_to_sections_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([\w-]+)\)", TEXT))
    assert links
    assert links <= headings
