"""Arguments for a call that is only looked at: what is required and was not given is shown as ``<name>``."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.schemas.schema import validate_arguments
from praxis_mcp.contracts.values import BindKind


def fill_arguments(contract: ToolContract, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arguments, checked, defaults applied; and the names of the parameters that a placeholder stands for.

    Raises:
        ArgumentError: those that were given do not fit.
    """
    missing = [item for item in contract.parameters if item.required and item.name not in arguments]
    if not missing:
        return validate_arguments(contract, arguments), ()
    optional = tuple(item.model_copy(update={"required": False}) for item in contract.parameters)
    checked = validate_arguments(contract.model_copy(update={"parameters": optional}), arguments)
    checked |= {item.name: _placeholder(item) for item in missing}
    return checked, tuple(item.name for item in missing)


def _placeholder(parameter: ToolParameter) -> Any:
    text = f"<{parameter.name}>"
    if parameter.type == "boolean" and parameter.bind.kind is BindKind.FLAG:
        return True  # the flag itself
    if parameter.keywords.get("contentEncoding") == "base64":
        return base64.b64encode(text.encode()).decode()
    return text
