"""Sandboxes are made by our own launcher or by bubblewrap; what holds for one holds for the other."""

import pytest

from tests.engines.host import launchers


@pytest.fixture(params=launchers.BOTH)
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What makes the sandboxes of a test, which is run with each."""
    monkeypatch.setattr(launchers, "chosen", request.param)
    return request.param
