"""The local engine under bubblewrap as a case of the conformance suite."""

import pytest

from tests.engines.host.local_case import LocalCase


class BubblewrapCase(LocalCase):
    """The same, with bubblewrap as what makes the sandboxes."""

    name = "local-bubblewrap"
    marks = (pytest.mark.bubblewrap,)
    maker = "bubblewrap"


CASE = BubblewrapCase()
