"""Paths that are judged and then used: what a descriptor holds is what was judged, links or no links."""

import os
from pathlib import Path

import pytest

from praxis_mcp.errors import ExecutionError, LimitUnsupported
from praxis_mcp.plans.model import Mount
from praxis_mcp.plans.paths import check_mount, open_mount
from praxis_mcp.settings.model import Settings
from praxis_mcp.support import rooted
from praxis_mcp.support.rooted import identity_of, open_path

pytestmark = pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="Linux alone has such descriptors")


@pytest.fixture(params=["openat2", "one name after the other"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "openat2":
        monkeypatch.setattr(rooted, "_openat2", lambda: None)


@pytest.mark.usefixtures("way")
def test_a_path_without_links_is_opened_and_one_with_a_link_anywhere_is_not(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a/b/last").symlink_to("file")
    for path in ("", "a", "a/b/file"):
        found = open_path(str(tmp_path / path))
        assert identity_of(found) == ((status := (tmp_path / path).stat()).st_dev, status.st_ino)
        os.close(found)
    os.close(open_path("/"))
    for path in ("link", "link/b", "a/b/last"):
        with pytest.raises(OSError, match=r"links|directory"):
            open_path(str(tmp_path / path))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("other", ["a link", "another directory", "nothing"])
def test_what_took_the_place_of_a_judged_source_is_not_mounted(tmp_path: Path, other: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    mount = check_mount(Mount(tmp_path / "in", "/in"), Settings(root=tmp_path), "tool")
    os.close(open_mount(mount))
    (tmp_path / "in").rename(tmp_path / "moved")
    if other == "a link":
        (tmp_path / "in").symlink_to("elsewhere")
    elif other == "another directory":
        (tmp_path / "in").mkdir()
    with pytest.raises(ExecutionError, match="was replaced after it had been checked"):
        open_mount(mount)


def test_a_link_of_the_project_leads_a_mount_out_of_it_only_with_consent(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (project / "data").mkdir(parents=True)
    elsewhere.mkdir()
    (project / "inside").symlink_to("data")
    (project / "outside").symlink_to(elsewhere)
    settings = Settings(root=project)
    assert check_mount(Mount(project / "inside", "/in"), settings, "tool").source == project / "data"
    assert check_mount(Mount(elsewhere, "/in"), settings, "tool").source == elsewhere
    with pytest.raises(LimitUnsupported, match="a link leads out of the project") as refusal:
        check_mount(Mount(project / "outside", "/in"), settings, "tool")
    assert str(elsewhere) in (refusal.value.remedy or "")
    allowed = Settings.model_validate({"root": project, "policy": {"sensitive_paths": [elsewhere]}})
    assert check_mount(Mount(project / "outside", "/in"), allowed, "tool").source == elsewhere
