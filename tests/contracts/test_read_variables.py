"""A parameter whose name in capitals means something to the command's own programs is warned of."""

import itertools
import re

import pytest

from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.contracts.variables import READ_VARIABLES, is_reserved

TEXT = READ_VARIABLES.read_text(encoding="utf-8")
SHELL = "name: t\ndescription: d\nimage: x\ncommand: [bash, -c, 'sleep 1; psql -c x']\n"


@pytest.mark.parametrize(("name", "program"), [("seconds", "bash"), ("PGHOST", "psql"), ("pguser", "psql")])
def test_the_warning_names_variable_program_and_remedy(name: str, program: str) -> None:
    (warning,) = load_text(SHELL + f"parameters: {{{name}: string}}\n").diagnostics
    assert not warning.is_error
    assert f"set as {name.upper()}, which {program} reads for itself" in warning.message
    assert f"TOOL_{name.upper()}" in warning.remedy


@pytest.mark.parametrize(
    "parameters", ["{text: string}", "{seconds: {bind: {env: SECONDS}}}", "{seconds: {bind: {flag: --seconds}}}"]
)
def test_ordinary_names_and_bindings_that_were_chosen_are_not_warned_of(parameters: str) -> None:
    assert load_text(SHELL + f"parameters: {parameters}\n").diagnostics == ()


def test_the_image_tells_of_programs_too() -> None:
    head = "name: t\ndescription: d\nimage: registry.example.org/library/postgres:16\ncommand: [run]\n"
    (warning,) = load_text(head + "parameters: {pgdatabase: string}\n").diagnostics
    assert "which postgres reads" in warning.message


def test_every_line_has_a_source_and_names_nothing_that_is_refused_already() -> None:
    lines = TEXT.splitlines()
    for above, line in itertools.pairwise(lines):
        if line and not line.startswith("#"):
            assert above.startswith("# ") or " : " in above
            names = line.partition(" : ")[2].split()
            assert names
            assert [name for name in names if is_reserved(name) or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name)] == []
