"""Every praxis-mcp command that README.md and docs/ show exists, with its options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from praxis_mcp.cli.app import make_app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown(page: Path) -> list[str]:
    """The lines after a prompt, and what stands in backquotes, that begin with praxis-mcp."""
    return re.findall(r"(?:^\$ |`)praxis-mcp ([^`\n]+)", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_documentation_exist_with_their_options(page: Path) -> None:
    for line in shown(page):
        command = typer.main.get_command(make_app())
        words = shlex.split(line, comments=True)
        while words and (commands := getattr(command, "commands", None)):
            names = words.pop(0).split("|")  # image import|pull
            assert commands.keys() >= set(names), f"{page.name}: praxis-mcp {line}"
            command = commands[names[0]]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        options = {word for word in words if word.startswith("-")}
        assert options <= known, f"{page.name}: praxis-mcp {line}"


def test_commands_are_found_in_the_documentation() -> None:
    assert {"trust", "doctor"} <= {line.split()[0] for line in shown(ROOT / "docs" / "trust.md")}
    assert sum(len(shown(page)) for page in PAGES) > 20
