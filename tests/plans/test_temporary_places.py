"""The temporary directory is mounted with consent only: other programs' sockets and the server's records are there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from praxis_mcp.errors import LimitUnsupported
from praxis_mcp.plans.model import Mount
from praxis_mcp.plans.paths import check_mount, check_working_directory, why_sensitive
from praxis_mcp.settings.model import Settings


@pytest.mark.parametrize("place", ["/tmp", "/var/tmp"])
def test_the_temporary_directory_is_mounted_with_consent_only(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")  # a home there is another reason
    mount = Mount(Path(place), "/t")
    with pytest.raises(LimitUnsupported, match="temporary files"):
        check_mount(mount, Settings(root=tmp_path), "tool")
    allowed = Settings.model_validate({"root": tmp_path, "policy": {"sensitive_paths": [place]}})
    assert check_mount(mount, allowed, "tool").source == Path(place)
    assert check_mount(Mount(tmp_path, "/t"), Settings(root=tmp_path), "tool").source == tmp_path
    assert check_working_directory(Path(place), Settings(root=tmp_path), "tool") == Path(place)  # a call's own


def test_the_servers_own_temporary_directory_counts_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch/me").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch/me"))
    settings = Settings(root=tmp_path / "project")
    assert why_sensitive(tmp_path / "scratch/me", settings)
    assert why_sensitive(tmp_path / "scratch", settings)
    assert why_sensitive(tmp_path / "scratch/me/project", settings) is None


@pytest.mark.parametrize("place", ["/tmp/.X11-unix", "/tmp/.X11-unix/X0", "/tmp/tmux-0", "/tmp/tmux-1000/default"])
def test_directories_of_sockets_that_lie_there_are_a_way_to_the_host(tmp_path: Path, place: str) -> None:
    assert "socket" in (why_sensitive(Path(place), Settings(root=tmp_path)) or "")
    assert why_sensitive(Path("/tmp/tmuxinator"), Settings(root=tmp_path)) is None


def test_the_key_of_the_servers_certificate_is_a_credential(tmp_path: Path) -> None:
    files = {"tls_key": "keys/key.pem", "tls_certificate": "cert.pem"}
    settings = Settings.model_validate({"root": tmp_path, "http": files})
    assert why_sensitive(tmp_path / "keys", settings)
    assert why_sensitive(tmp_path / "keys/key.pem", settings)
    assert why_sensitive(tmp_path / "data", settings) is None
