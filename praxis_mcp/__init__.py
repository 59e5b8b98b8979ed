"""praxis-mcp: an MCP server that turns a directory of tool contracts into containerized tools for LLM agents.

The public names are imported when they are first used, so that ``import praxis_mcp`` costs nothing and pulls in no
engine's SDK. docs/library.md shows how they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # written by scripts/exports.py from the table below
    from praxis_mcp.contracts.catalog.catalog import Catalog as Catalog
    from praxis_mcp.contracts.catalog.catalog import CatalogChange as CatalogChange
    from praxis_mcp.contracts.catalog.catalog import CatalogEntry as CatalogEntry
    from praxis_mcp.contracts.model import Annotations as Annotations
    from praxis_mcp.contracts.model import EngineType as EngineType
    from praxis_mcp.contracts.model import Example as Example
    from praxis_mcp.contracts.model import ToolContract as ToolContract
    from praxis_mcp.contracts.model import ToolParameter as ToolParameter
    from praxis_mcp.contracts.reading.loading import LoadedContract as LoadedContract
    from praxis_mcp.contracts.reading.loading import load_contract as load_contract
    from praxis_mcp.contracts.specs import CommandSpec as CommandSpec
    from praxis_mcp.contracts.specs import DaggerEngineSpec as DaggerEngineSpec
    from praxis_mcp.contracts.specs import HttpEngineSpec as HttpEngineSpec
    from praxis_mcp.contracts.specs import LocalEngineSpec as LocalEngineSpec
    from praxis_mcp.contracts.specs import RemoteMCPEngineSpec as RemoteMCPEngineSpec
    from praxis_mcp.contracts.values import Binding as Binding
    from praxis_mcp.contracts.values import BindKind as BindKind
    from praxis_mcp.contracts.values import Network as Network
    from praxis_mcp.diagnostics import Diagnostic as Diagnostic
    from praxis_mcp.diagnostics import Severity as Severity
    from praxis_mcp.engines.base import Artifact as Artifact
    from praxis_mcp.engines.base import EngineCapabilities as EngineCapabilities
    from praxis_mcp.engines.base import EngineStatus as EngineStatus
    from praxis_mcp.engines.base import ExecutionContext as ExecutionContext
    from praxis_mcp.engines.base import ExecutionEngine as ExecutionEngine
    from praxis_mcp.engines.base import ExecutionResult as ExecutionResult
    from praxis_mcp.engines.base import RemoteContent as RemoteContent
    from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine as DaggerExecutionEngine
    from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine as DockerSDKExecutionEngine
    from praxis_mcp.engines.host.local import LocalExecutionEngine as LocalExecutionEngine
    from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine as SandboxExecutionEngine
    from praxis_mcp.engines.http.engine import HttpEngine as HttpEngine
    from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine as KubernetesExecutionEngine
    from praxis_mcp.engines.output import Captured as Captured
    from praxis_mcp.engines.output import StreamCollector as StreamCollector
    from praxis_mcp.engines.registry import EngineRegistry as EngineRegistry
    from praxis_mcp.engines.remote import RemoteMCPEngine as RemoteMCPEngine
    from praxis_mcp.errors import ArgumentError as ArgumentError
    from praxis_mcp.errors import CommandNotFound as CommandNotFound
    from praxis_mcp.errors import ContractError as ContractError
    from praxis_mcp.errors import EngineUnavailable as EngineUnavailable
    from praxis_mcp.errors import ExecutionError as ExecutionError
    from praxis_mcp.errors import ExecutionTimeout as ExecutionTimeout
    from praxis_mcp.errors import ImageError as ImageError
    from praxis_mcp.errors import LimitUnsupported as LimitUnsupported
    from praxis_mcp.errors import OutputMisfit as OutputMisfit
    from praxis_mcp.errors import PraxisError as PraxisError
    from praxis_mcp.errors import QueueFull as QueueFull
    from praxis_mcp.errors import RecordsUnavailable as RecordsUnavailable
    from praxis_mcp.errors import RemoteError as RemoteError
    from praxis_mcp.errors import RunCancelled as RunCancelled
    from praxis_mcp.errors import RunNotFoundError as RunNotFoundError
    from praxis_mcp.errors import SettingsError as SettingsError
    from praxis_mcp.errors import UnknownToolError as UnknownToolError
    from praxis_mcp.execution.result_checks import structured_output as structured_output
    from praxis_mcp.execution.runner import Explanation as Explanation
    from praxis_mcp.execution.toolbox import Toolbox as Toolbox
    from praxis_mcp.execution.toolbox import open_toolbox as open_toolbox
    from praxis_mcp.plans.model import Blueprint as Blueprint
    from praxis_mcp.plans.model import Call as Call
    from praxis_mcp.plans.model import Capability as Capability
    from praxis_mcp.plans.model import Plan as Plan
    from praxis_mcp.settings.base import SecretRef as SecretRef
    from praxis_mcp.settings.model import Settings as Settings
    from praxis_mcp.settings.model import load_settings as load_settings

    __version__: str

_MODULES = {
    "contracts.catalog.catalog": ("Catalog", "CatalogChange", "CatalogEntry"),
    "contracts.reading.loading": ("LoadedContract", "load_contract"),
    "contracts.model": ("Annotations", "EngineType", "Example", "ToolContract", "ToolParameter"),
    "contracts.specs": ("CommandSpec", "DaggerEngineSpec", "HttpEngineSpec", "LocalEngineSpec", "RemoteMCPEngineSpec"),
    "contracts.values": ("BindKind", "Binding", "Network"),
    "diagnostics": ("Diagnostic", "Severity"),
    "engines.base": (
        "Artifact",
        "EngineCapabilities",
        "EngineStatus",
        "ExecutionContext",
        "ExecutionEngine",
        "ExecutionResult",
        "RemoteContent",
    ),
    "engines.dagger.engine": ("DaggerExecutionEngine",),
    "engines.docker.engine": ("DockerSDKExecutionEngine",),
    "engines.host.local": ("LocalExecutionEngine",),
    "engines.http.engine": ("HttpEngine",),
    "engines.kubernetes.engine": ("KubernetesExecutionEngine",),
    "engines.output": ("Captured", "StreamCollector"),
    "engines.registry": ("EngineRegistry",),
    "engines.remote": ("RemoteMCPEngine",),
    "engines.host.sandbox": ("SandboxExecutionEngine",),
    "errors": (
        "ArgumentError",
        "CommandNotFound",
        "ContractError",
        "EngineUnavailable",
        "ExecutionError",
        "ExecutionTimeout",
        "ImageError",
        "LimitUnsupported",
        "OutputMisfit",
        "PraxisError",
        "QueueFull",
        "RecordsUnavailable",
        "RemoteError",
        "RunCancelled",
        "RunNotFoundError",
        "SettingsError",
        "UnknownToolError",
    ),
    "execution.runner": ("Explanation",),
    "execution.result_checks": ("structured_output",),
    "execution.toolbox": ("Toolbox", "open_toolbox"),
    "plans.model": ("Blueprint", "Call", "Capability", "Plan"),
    "settings.model": ("Settings", "load_settings"),
    "settings.base": ("SecretRef",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_HOMES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value = version("praxis-mcp")
        globals()[name] = value
        return value
    if name not in _HOMES:
        raise AttributeError(f"module 'praxis_mcp' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"praxis_mcp.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
