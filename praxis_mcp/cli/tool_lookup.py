"""The tool that a command names; where there is none, why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import anyio.to_thread

from praxis_mcp.errors import UnknownToolError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from praxis_mcp.contracts.catalog.catalog import CatalogEntry
    from praxis_mcp.diagnostics import Diagnostic
    from praxis_mcp.execution.toolbox import Toolbox


async def find_tool(toolbox: Toolbox, name: str) -> CatalogEntry:
    """The tool of that name, from a contract.

    Raises:
        UnknownToolError: there is none. Says what is wrong with its contract where that is left out for an error, why
            it is held back, and which directory of contracts is missing. An agent is not told so: paths of the server
            are not its business.
    """
    try:
        return toolbox.catalog.get(name)
    except UnknownToolError as exc:
        from praxis_mcp.contracts.catalog.approvals import HeldBack

        held = [item for item in toolbox.catalog.diagnostics if isinstance(item, HeldBack) and item.tool == name]
        if held:
            raise UnknownToolError(held[0].message, remedy=held[0].remedy) from exc
        errors = [item for item in toolbox.catalog.diagnostics if item.is_error]
        reason = await anyio.to_thread.run_sync(_explained, exc, name, errors)
        raise reason from exc


def _explained(unknown: UnknownToolError, name: str, errors: Sequence[Diagnostic]) -> UnknownToolError:
    own = [str(item) for item in errors if item.path is not None and _is_of(item.path, name)]
    if own:
        return UnknownToolError("\n  ".join([f"{name} is left out, because its contract is broken:", *own]))
    missing = [item for item in errors if item.path is not None and not item.path.exists()]
    if missing:
        sentences = [item.message for item in missing]
        return UnknownToolError(" ".join([*sentences, unknown.message]), remedy=missing[0].remedy)
    return unknown


def _is_of(path: Path, name: str) -> bool:
    """Whether the file seems meant as that tool's: it is named so, or says so where it can still be read."""
    from praxis_mcp.contracts.discovery import read_bytes

    if name in (path.name.partition(".")[0], path.parent.name):
        return True
    try:
        text = read_bytes(path).decode(errors="replace")
    except OSError:
        return False
    # At the top level: of YAML, of JSON on one line, or of indented JSON.
    own_key = r"^(?:name|['\"]name['\"]|\{? {0,4}\"name\")"
    value = rf"\s*:\s*['\"]?{re.escape(name)}['\"]?\s*(?:,|#|\}}|$)"
    return re.search(own_key + value, text, re.MULTILINE) is not None
