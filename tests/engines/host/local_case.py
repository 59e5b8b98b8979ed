"""The local engine as a case of the conformance suite."""

import shutil
from collections.abc import Sequence
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing import EngineCase

_OF_CONTAINERS = frozenset(
    {
        Capability.READ_ONLY_ROOT,
        Capability.USER,
        Capability.PRIVILEGED,
        Capability.DROP_CAPABILITIES,
        Capability.CACHE_DIRS,
        Capability.IMAGES,
    }
)
LIMITS = frozenset({Capability.MEMORY_LIMIT, Capability.CPU_LIMIT, Capability.PIDS_LIMIT})
OF_SANDBOX = frozenset({Capability.MOUNTS, Capability.WRITABLE_MOUNTS, Capability.FILES})


class LocalCase(EngineCase):
    name = "local"
    marks = (pytest.mark.native,)
    bulk = 2_000_000  # through pipes, as local-plain
    inexpressible = _OF_CONTAINERS
    maker = "own"
    """What makes its sandboxes: praxis-init itself."""
    python_program = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"

    @property
    def lacks(self) -> frozenset[Capability]:
        return frozenset(find_cgroups().notes)

    def settings(self, **values: Any) -> Settings:
        return super().settings(**{"engines": {"local": {"sandbox": self.maker}}, **values})

    def engine(self, settings: Settings) -> ExecutionEngine:
        return LocalExecutionEngine(settings)

    def contract(self, command: Sequence[str], **fields: Any) -> ToolContract:
        return ToolContract.create_local_tool("conformance", list(command), **fields)


CASE = LocalCase()
