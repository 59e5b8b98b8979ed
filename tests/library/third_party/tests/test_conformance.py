"""How a package runs the conformance suite over its engine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from praxis_tiny import TinyEngine  # pyright: ignore[reportMissingImports]

from praxis_mcp import Capability, ExecutionEngine, Settings, ToolContract
from praxis_mcp.testing import EngineCase
from praxis_mcp.testing.conformance import *  # noqa: F403


class TinyCase(EngineCase):
    name = "tiny"
    python_program = sys.executable
    inexpressible = frozenset({Capability.IMAGES, Capability.USER, Capability.READ_ONLY_ROOT, Capability.CACHE_DIRS})

    @property
    def lacks(self) -> frozenset[Capability]:
        return frozenset(Capability) - {
            Capability.HOST_COMMANDS,
            Capability.NETWORK_HOST,
            Capability.STDIN,
            Capability.TIMEOUT,
        }

    def engine(self, settings: Settings) -> ExecutionEngine:
        return TinyEngine(settings)

    def contract(self, command: Sequence[str], **fields: Any) -> ToolContract:
        return ToolContract.create_local_tool("conformance", list(command), **{"network": "host", **fields})


CASES = [TinyCase()]
