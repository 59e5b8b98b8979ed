"""Checks of the tools together: which of them a model would mix up, and what all of them cost it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from praxis_mcp.checks.checked import Checked
from praxis_mcp.checks.table import MOST_TOOL_TOKENS
from praxis_mcp.contracts.problems import quoted
from praxis_mcp.serving.mcp.costs import Cost

_NEARLY = 0.85
"""The share of all their words that two descriptions have in common, above which they say the same."""
_FEWEST_WORDS = 4


def check_between(tools: Sequence[Checked]) -> None:
    """Report the tools that a model would mix up, each with the first other one."""
    known: dict[str, str] = {}
    for tool in tools:
        name = tool.contract.name
        other = known.setdefault(re.sub(r"[-_.]", "", name).lower(), name)
        if other != name:
            tool.report("similar-names", ("name",), f"The name {quoted(name)} can be taken for {quoted(other)}.")
    described = [(tool, words) for tool in tools if len(words := _words(tool)) >= _FEWEST_WORDS]
    for index, (tool, words) in enumerate(described):
        for other, others in described[:index]:
            # First by their numbers alone: a thousand tools are half a million pairs.
            fewer, more = sorted((len(words), len(others)))
            if fewer >= _NEARLY * more and len(words & others) >= _NEARLY * len(words | others):
                message = f"The description says nearly the same as that of {quoted(other.contract.name)}."
                tool.report("same-description", ("description",), message)
                break


def check_costs(tools: Sequence[Checked], costs: Mapping[str, Cost]) -> None:
    """Report the tools whose definitions are too long."""
    for tool in tools:
        cost = costs.get(tool.contract.name)
        if cost is not None and cost.tokens > MOST_TOOL_TOKENS:
            tool.report("costly-tool", ("name",), f"The definition takes about {cost.tokens:,} tokens.")


def _words(tool: Checked) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", (tool.contract.description or "").lower()))
