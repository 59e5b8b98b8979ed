"""The variables that an env-bound parameter arrives in."""

from __future__ import annotations

import re

from praxis_mcp.contracts.model import ToolParameter
from praxis_mcp.contracts.values import is_variable_name
from praxis_mcp.contracts.variables.reserved import is_reserved


def all_variable_names(parameter: ToolParameter) -> tuple[str, ...]:
    """The variables an env-bound parameter is meant for: the one its binding names, else its own name, the upper
    case, and the upper case with underscores where a shell could not read the name."""
    if parameter.bind.target is not None:
        return (str(parameter.bind.target),)
    upper = parameter.name.upper()
    return tuple(dict.fromkeys((parameter.name, upper, re.sub(r"\W", "_", upper, flags=re.ASCII))))


def variable_names(parameter: ToolParameter) -> tuple[str, ...]:
    """The variables an env-bound parameter arrives in: `all_variable_names`, those left out that are reserved
    or no names of variables."""
    return tuple(name for name in all_variable_names(parameter) if is_variable_name(name) and not is_reserved(name))
