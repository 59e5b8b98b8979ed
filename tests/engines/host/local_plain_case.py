"""The local engine without a sandbox as a case of the conformance suite."""

from typing import Any

from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from tests.engines.host.local_case import LIMITS, OF_SANDBOXES, LocalCase


class PlainCase(LocalCase):
    """The same without a sandbox: artifacts go to `PRAXIS_OUTPUT_DIR`, for there is no other place for them."""

    name = "local-plain"
    bulk = 100_000_000

    @property
    def lacks(self) -> frozenset[Capability]:
        return OF_SANDBOXES | LIMITS

    def settings(self, **values: Any) -> Settings:
        return super().settings(engines={"local": {"sandbox": "off"}}, **values)


CASE = PlainCase()
