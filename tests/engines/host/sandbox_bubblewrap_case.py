"""The sandbox engine under bubblewrap as a case of the conformance suite."""

import pytest

from tests.engines.host.sandbox_case import SandboxCase


class BubblewrapCase(SandboxCase):
    """The same, with bubblewrap as what makes the sandboxes."""

    name = "sandbox-bubblewrap"
    marks = (pytest.mark.docker, pytest.mark.bubblewrap)
    maker = "bubblewrap"


CASE = BubblewrapCase()
