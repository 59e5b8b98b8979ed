"""Checks of what a model reads of one tool: its name, its description and its parameters'."""

from __future__ import annotations

import re

from praxis_mcp.checks.checked import Checked
from praxis_mcp.checks.table import LONGEST_FULL_NAME, LONGEST_READ_DESCRIPTION, SHORTEST_DESCRIPTION
from praxis_mcp.contracts.problems import quoted

_UNFINISHED = re.compile(r"\b(?:TODO|FIXME|TBD|XXX)\b")
_WORD = re.compile(r"\w+")


def check_face(tool: Checked, server: str) -> None:
    """Report what is wrong with the names and texts of a tool.

    Args:
        tool: the tool.
        server: what clients call this server.
    """
    name = tool.contract.name
    full = f"mcp__{server}__{name}"
    # A name that is too long by itself is a warning of the contract.
    if len(name) <= LONGEST_FULL_NAME < len(full):
        tool.report("long-name", ("name",), f"{full}, as Claude Code calls it, has {len(full)} characters.")
    if "." in name:
        tool.report("name-characters", ("name",), f"The name {quoted(name)} has a dot, which model APIs refuse.")
    if not re.match(r"[A-Za-z_]", name):
        tool.report("name-start", ("name",), f"The name {quoted(name)} does not begin with a letter.")
    _check_description(tool)
    for parameter in tool.contract.parameters:
        place = tool.place(parameter.name)
        if not parameter.description.strip():
            tool.report("parameter-description", place, f"The parameter {quoted(parameter.name)} has no description.")
        elif _UNFINISHED.search(parameter.description):
            tool.report("unfinished-text", (*place, "description"), "The description is not finished.")


def _check_description(tool: Checked) -> None:
    text = (tool.contract.description or "").strip()
    if not text:
        return  # a warning of the contract
    where = ("description",)
    words = _words(text)
    if len(words) < SHORTEST_DESCRIPTION or words == _words(tool.contract.name):
        tool.report("short-description", where, "The description is too short for a model to decide by.")
    if len(text) > LONGEST_READ_DESCRIPTION:
        tool.report("long-description", where, f"The description has {len(text):,} characters.")
    if _UNFINISHED.search(text):
        tool.report("unfinished-text", where, "The description is not finished.")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.replace("_", " ").lower())
