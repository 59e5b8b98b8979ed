"""Pieces of contracts that engine tests share."""

import base64

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.values import Binding, BindKind

FOREVER = "import signal; signal.pause()"
"""Python that never ends by itself, and burns nothing meanwhile."""


def stdin_of(contract: ToolContract) -> ToolContract:
    """The contract, with a parameter `data` (base64) as its standard input."""
    return with_parameter(contract, Binding(kind=BindKind.STDIN))


def with_parameter(contract: ToolContract, bind: Binding) -> ToolContract:
    parameter = ToolParameter(name="data", bind=bind, keywords={"contentEncoding": "base64"})
    return contract.model_copy(update={"parameters": (*contract.parameters, parameter)})


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
