"""praxis-mcp: an MCP server that turns a directory of tool contracts into containerized tools for LLM agents.

The public names are imported when they are first used, so that ``import praxis_mcp`` costs nothing and pulls in no
engine's SDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from praxis_mcp.contracts.catalog import Catalog as Catalog
    from praxis_mcp.contracts.model import EngineType as EngineType
    from praxis_mcp.contracts.model import ToolContract as ToolContract
    from praxis_mcp.contracts.model import ToolParameter as ToolParameter
    from praxis_mcp.contracts.specs import DaggerEngineSpec as DaggerEngineSpec
    from praxis_mcp.contracts.specs import LocalEngineSpec as LocalEngineSpec
    from praxis_mcp.contracts.specs import RemoteMCPEngineSpec as RemoteMCPEngineSpec
    from praxis_mcp.engines.base import EngineCapabilities as EngineCapabilities
    from praxis_mcp.engines.base import ExecutionContext as ExecutionContext
    from praxis_mcp.engines.base import ExecutionEngine as ExecutionEngine
    from praxis_mcp.engines.base import ExecutionResult as ExecutionResult
    from praxis_mcp.engines.dagger import DaggerExecutionEngine as DaggerExecutionEngine
    from praxis_mcp.engines.docker import DockerSDKExecutionEngine as DockerSDKExecutionEngine
    from praxis_mcp.engines.local import LocalExecutionEngine as LocalExecutionEngine
    from praxis_mcp.engines.registry import EngineRegistry as EngineRegistry
    from praxis_mcp.engines.remote_mcp import RemoteMCPEngine as RemoteMCPEngine
    from praxis_mcp.errors import ArgumentError as ArgumentError
    from praxis_mcp.errors import CommandNotFound as CommandNotFound
    from praxis_mcp.errors import ContractError as ContractError
    from praxis_mcp.errors import EngineUnavailable as EngineUnavailable
    from praxis_mcp.errors import ExecutionError as ExecutionError
    from praxis_mcp.errors import ExecutionTimeout as ExecutionTimeout
    from praxis_mcp.errors import ImageError as ImageError
    from praxis_mcp.errors import LimitUnsupported as LimitUnsupported
    from praxis_mcp.errors import PraxisError as PraxisError
    from praxis_mcp.errors import QueueFull as QueueFull
    from praxis_mcp.errors import RemoteError as RemoteError
    from praxis_mcp.settings import Settings as Settings
    from praxis_mcp.settings import load_settings as load_settings

_MODULES = {
    "contracts.catalog": ("Catalog",),
    "contracts.model": ("EngineType", "ToolContract", "ToolParameter"),
    "contracts.specs": ("DaggerEngineSpec", "LocalEngineSpec", "RemoteMCPEngineSpec"),
    "engines.base": ("EngineCapabilities", "ExecutionContext", "ExecutionEngine", "ExecutionResult"),
    "engines.dagger": ("DaggerExecutionEngine",),
    "engines.docker": ("DockerSDKExecutionEngine",),
    "engines.local": ("LocalExecutionEngine",),
    "engines.registry": ("EngineRegistry",),
    "engines.remote_mcp": ("RemoteMCPEngine",),
    "errors": (
        "ArgumentError",
        "CommandNotFound",
        "ContractError",
        "EngineUnavailable",
        "ExecutionError",
        "ExecutionTimeout",
        "ImageError",
        "LimitUnsupported",
        "PraxisError",
        "QueueFull",
        "RemoteError",
    ),
    "settings": ("Settings", "load_settings"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'praxis_mcp' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"praxis_mcp.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
