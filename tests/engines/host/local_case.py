"""The local engine as a case of the conformance suite."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing import EngineCase
from tests.kit import requirements

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
OF_SANDBOXES = frozenset({Capability.MOUNTS, Capability.WRITABLE_MOUNTS, Capability.FILES})


class LocalCase(EngineCase):
    name = "local"
    bulk = 2_000_000  # through pipes, as local-plain
    inexpressible = _OF_CONTAINERS
    python_program = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"

    @property
    def lacks(self) -> frozenset[Capability]:
        if requirements.missing("sandbox") and requirements.missing("bubblewrap"):
            return OF_SANDBOXES | LIMITS
        return frozenset(find_cgroups().notes)

    sandbox = "auto"
    warm: Mapping[str, Any] = {"enabled": False}

    def settings(self, **values: Any) -> Settings:
        local = {"sandbox": self.sandbox}
        return Settings.model_validate({"engines": {"local": local}, "warm": self.warm, **values})

    def engine(self, settings: Settings) -> ExecutionEngine:
        return LocalExecutionEngine(settings)

    def contract(self, command: Sequence[str], **fields: Any) -> ToolContract:
        return ToolContract.create_local_tool("conformance", list(command), **fields)


CASE = LocalCase()
