"""The sandbox engine under bubblewrap, its second choice, as a case of the conformance suite."""

import pytest

from tests.engines.host.sandbox_case import SandboxCase


class SandboxBubblewrapCase(SandboxCase):
    name = "sandbox-bubblewrap"
    marks = (pytest.mark.bubblewrap,)
    launcher = "bubblewrap"


CASE = SandboxBubblewrapCase()
