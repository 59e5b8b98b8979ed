"""Approvals of settings files and contracts are not a place for a tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from praxis_mcp.plans.paths import hidden_places, why_sensitive
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.trust import TrustStore, approvals_directory


@pytest.mark.parametrize("place", [".", "praxis-mcp", "praxis-mcp/approved", "praxis-mcp/approved/contracts"])
def test_a_mount_that_holds_approvals_needs_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    TrustStore("contracts").approve(tmp_path / "x.contract.yaml", "0" * 64)
    settings = Settings(root=tmp_path)
    assert why_sensitive(tmp_path / "config" / place, settings)
    assert why_sensitive(tmp_path / "other", settings) is None
    assert str(approvals_directory()) in set(hidden_places(settings))
