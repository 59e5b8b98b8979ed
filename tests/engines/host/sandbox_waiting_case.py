"""The sandbox engine as a case of the conformance suite, every call of which meets a sandbox that waits for it."""

from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.settings.model import Settings
from tests.engines.host.sandbox_case import SandboxCase
from tests.engines.host.waiting import WHEN_ASKED, WaitingSandboxEngine


class SandboxWaitingCase(SandboxCase):
    name = "sandbox-waiting"
    warm = WHEN_ASKED

    def engine(self, settings: Settings) -> ExecutionEngine:
        return WaitingSandboxEngine(settings)


CASE = SandboxWaitingCase()
