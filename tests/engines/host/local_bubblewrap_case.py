"""The local engine in bubblewrap, its second choice, as a case of the conformance suite."""

import pytest

from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.plans.model import Capability
from tests.engines.host.local_case import LocalCase


class LocalBubblewrapCase(LocalCase):
    name = "local-bubblewrap"
    sandbox = "bubblewrap"
    marks = (pytest.mark.bubblewrap,)

    @property
    def lacks(self) -> frozenset[Capability]:
        return frozenset(find_cgroups().notes)


CASE = LocalBubblewrapCase()
