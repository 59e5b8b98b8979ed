"""The local engine as a case of the conformance suite, every call of which meets a sandbox that waits for it."""

import os

import pytest

from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from tests.engines.host.local_case import LocalCase
from tests.engines.host.sandbox_case import control_groups
from tests.engines.host.waiting import WHEN_ASKED, WaitingLocalEngine


class LocalWaitingCase(LocalCase):
    name = "local-waiting"
    marks = (pytest.mark.sandbox,)
    sandbox = "own"
    warm = WHEN_ASKED

    @property
    def lacks(self) -> frozenset[Capability]:
        return frozenset(find_cgroups().notes)

    def engine(self, settings: Settings) -> ExecutionEngine:
        return WaitingLocalEngine(settings)

    def leftovers(self) -> list[str]:
        return control_groups(f"praxis-mcp-{os.getpid()}-")


CASE = LocalWaitingCase()
