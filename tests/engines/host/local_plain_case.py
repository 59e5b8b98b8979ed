"""The local engine without a sandbox as a case of the conformance suite."""

from praxis_mcp.plans.model import Capability
from tests.engines.host.local_case import LIMITS, OF_SANDBOXES, LocalCase


class PlainCase(LocalCase):
    """The same without a sandbox: artifacts go to `PRAXIS_OUTPUT_DIR`, for there is no other place for them."""

    name = "local-plain"
    sandbox = "off"
    bulk = 100_000_000

    @property
    def lacks(self) -> frozenset[Capability]:
        return OF_SANDBOXES | LIMITS


CASE = PlainCase()
