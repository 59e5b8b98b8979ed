"""Contracts that load, of descriptions that contradict themselves: a default that its own schema does not allow, an
enum of texts for a number. What is wrong is left out, and named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.reading.loading import load_bytes
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.importing.docker_run import ImportedTool

_ADVICE = frozenset({
    "default", "enum", "const", "examples", "format", "pattern", "multipleOf", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties",
    "maxProperties", "contentEncoding", "contentMediaType", "dependentRequired", "additionalProperties",
})  # fmt: skip
"""Keywords without which a schema says less, and nothing wrong."""
_MOST_REPAIRS = 30


def as_file(tool: ImportedTool, origin: str) -> tuple[str, Diagnostic | None]:
    """The text of a contract, and the error for which it is refused all the same.

    Args:
        tool: loses the keywords that would have it refused; its notes name them.
        origin: see `ImportedTool.written`.
    """
    written, error = "", None
    for _ in range(_MOST_REPAIRS):
        written = tool.written(origin)
        found = load_bytes(written.encode(), Path(tool.name, "contract.yaml")).diagnostics
        error = next((item for item in found if item.is_error), None)
        field = re.sub(r"\[\d+\]$", "", error.field) if error is not None else ""
        if error is None or not _leave_out(tool.contract, field):
            break
        tool.notes.append(f"{field} is left out: {error.message}")
    return written, error


def _leave_out(contract: dict[str, Any], field: str) -> bool:
    """Whether there was a keyword at that dotted path that could be left out."""
    holder: Any = contract
    rest = field
    while True:
        names = {f"[{key}]" if isinstance(holder, list) else str(key): key for key in _keys(holder)}
        if rest in names:
            is_known = isinstance(holder, dict) and rest in _ADVICE and holder is not contract
            if is_known:
                del holder[names[rest]]
            return is_known
        steps = [name for name in names if rest.startswith((f"{name}.", f"{name}["))]
        if not steps:
            return False
        step = max(steps, key=len)
        holder, rest = holder[names[step]], rest[len(step) :].removeprefix(".")


def _keys(holder: Any) -> Any:
    return range(len(holder)) if isinstance(holder, list) else holder if isinstance(holder, dict) else ()
