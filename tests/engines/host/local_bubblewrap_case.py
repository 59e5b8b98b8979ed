"""The local engine in bubblewrap, its second choice, as a case of the conformance suite."""

from typing import Any

import pytest

from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from tests.engines.host.local_case import LocalCase


class LocalBubblewrapCase(LocalCase):
    name = "local-bubblewrap"
    marks = (pytest.mark.bubblewrap,)

    @property
    def lacks(self) -> frozenset[Capability]:
        return frozenset(find_cgroups().notes)

    def settings(self, **values: Any) -> Settings:
        return super().settings(engines={"local": {"sandbox": "bubblewrap"}}, **values)


CASE = LocalBubblewrapCase()
