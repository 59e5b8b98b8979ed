"""What may make a sandbox, and which of them a test takes."""

import pytest

BOTH = [
    pytest.param("own", marks=pytest.mark.sandbox),
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
]
"""Every launcher, with what a test with it needs of the machine."""

chosen = "auto"
"""For tests without the `launcher` fixture: what users have."""
