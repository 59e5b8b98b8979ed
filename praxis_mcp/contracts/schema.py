"""Parameters → JSON Schema 2020-12, and arguments checked against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from praxis_mcp.contracts.model import ToolContract


def input_schema(contract: ToolContract) -> dict[str, Any]:
    """The tool's `inputSchema`."""
    raise NotImplementedError


def validate_arguments(contract: ToolContract, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, checked, defaults applied.

    Raises:
        ArgumentError: they do not fit; one sentence for each problem.
    """
    raise NotImplementedError
