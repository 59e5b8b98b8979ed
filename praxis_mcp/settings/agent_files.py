"""Configuration files of the older SDK's agents: not settings and not a contract, but often taken for one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SECTIONS = ("agent", "agents", "p2p", "llm", "a2a", "websocket")
"""Sections of such files that neither settings nor contracts have."""


def is_agent_configuration(values: Mapping[Any, Any]) -> bool:
    """Whether that is what a file holds."""
    return any(isinstance(values.get(name), Mapping) for name in _SECTIONS) and "command" not in values


def tool_names(values: Mapping[Any, Any]) -> list[str]:
    """The tools in it that are contracts, in their order; what the agent itself did has no specification."""
    agent = values.get("agent")
    lists = (agent.get("tools") if isinstance(agent, Mapping) else None, values.get("tools"))
    entries = [entry for items in lists if isinstance(items, list) for entry in items]
    return [
        str(entry["name"])
        for entry in entries
        if isinstance(entry, Mapping) and entry.get("name") and ("engineSpec" in entry or "engine_spec" in entry)
    ]
