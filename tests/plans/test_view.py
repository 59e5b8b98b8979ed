"""What lies where for a tool: a mount inside another one has a place there, or is refused with what to create."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.view import Gap, Layer, View


@dataclass(frozen=True)
class _Outer:
    """A directory of the host, seen at /w, that is read-only."""

    view: View[Layer]
    place: Path


@pytest.fixture
def outer(tmp_path: Path) -> _Outer:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    return _Outer(View([Layer("/w", str(tmp_path))]), tmp_path)


def test_what_is_there_already_needs_no_room_and_neither_does_what_no_layer_has(outer: _Outer) -> None:
    assert outer.view.find_gap("/w/folder", is_directory=True) is None
    assert outer.view.find_gap("/elsewhere", is_directory=True) is None
    assert View([Layer("/w", None)]).find_gap("/w/new", is_directory=True) is None


@pytest.mark.parametrize(("path", "is_directory"), [("/w/file", True), ("/w/folder", False)])
def test_a_directory_does_not_lie_over_a_file_nor_a_file_over_a_directory(
    outer: _Outer, path: str, is_directory: bool
) -> None:
    with pytest.raises(ExecutionError, match=r"is a (file|directory) \(.* on the host\), where a \w+ cannot lie"):
        outer.view.find_gap(path, is_directory=is_directory)


def test_a_place_below_a_file_cannot_exist(outer: _Outer) -> None:
    with pytest.raises(ExecutionError, match=r"/w/file/deeper/new cannot exist for the tool: /w/file .* not a dir"):
        outer.view.find_gap("/w/file/deeper/new", is_directory=True)


def test_where_the_host_may_not_be_written_the_directory_that_lacks_the_place_is_named(outer: _Outer) -> None:
    gap = outer.view.find_gap("/w/folder/a/b", is_directory=True)
    assert gap == Gap("/w/folder", str(outer.place / "folder"), 0)


def test_a_writable_mount_gets_nothing_made_in_it(tmp_path: Path) -> None:
    view = View([Layer("/w", str(tmp_path), writable=True)])
    with pytest.raises(ExecutionError, match=f"{tmp_path}/new"):
        view.find_gap("/w/new", is_directory=True)


def test_links_that_go_round_in_circles_lead_nowhere(outer: _Outer) -> None:
    (outer.place / "a").symlink_to("b")
    (outer.place / "b").symlink_to("a")
    with pytest.raises(ExecutionError, match="its links go round in circles"):
        outer.view.resolve("/w/a/x")
