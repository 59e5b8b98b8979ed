"""A directory goes with all that is in it, however tools and images have left it."""

import multiprocessing
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from praxis_mcp.support.removal import remove_tree

LIMIT = 60.0


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that another user can reach, in which `made` is to go."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def as_no_root(work: Callable[[Path], None], place: Path) -> None:
    """Do it in a process that modes of files hold for."""
    child = multiprocessing.get_context("spawn").Process(target=_unprivileged, args=(work, place))
    child.start()
    child.join(LIMIT)
    child.kill()
    assert child.exitcode == 0


def _unprivileged(work: Callable[[Path], None], place: Path) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    work(place)


def closed_directories(place: Path) -> None:
    made = place / "made"
    for name, mode in (("a/none", 0o000), ("a/read", 0o400), ("a/go", 0o100), ("a/look", 0o500), ("a/empty", 0o000)):
        (made / name / "inner").mkdir(parents=True)
        (made / name / "inner/file").write_text("x")
        (made / name / "file").write_text("x")
        (made / name / "inner").chmod(mode)
        (made / name).chmod(mode)
    (made / "a").chmod(0o500)
    made.chmod(0o000)
    assert remove_tree(made) is None
    assert not made.exists()


def test_directories_without_any_permission_go(place: Path) -> None:
    as_no_root(closed_directories, place)


def deep_tree(place: Path) -> None:
    made = place / "made"
    made.mkdir()
    os.chdir(made)
    for _ in range(3000):  # deeper than Python recurses, and than a path can name
        Path("file").write_text("x")
        os.mkdir("d")
        os.chdir("d")
    os.chdir("/")
    assert remove_tree(made) is None
    assert not made.exists()


def test_a_tree_deeper_than_any_path_goes(place: Path) -> None:
    as_no_root(deep_tree, place)


def test_links_go_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    outside, made = tmp_path / "outside", tmp_path / "made"
    outside.mkdir(mode=0o500)
    (outside / "file").write_text("of the host")
    made.mkdir()
    (made / "link").symlink_to(outside)
    (made / "loop").symlink_to("loop")
    os.mkfifo(made / "pipe")
    assert remove_tree(made) is None
    (tmp_path / "alone").symlink_to(outside)
    assert remove_tree(tmp_path / "alone") is None
    assert remove_tree(tmp_path / "missing") is None
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "file").read_text() == "of the host"
    assert stat.S_IMODE(outside.stat().st_mode) == 0o500


def another_users_file(place: Path) -> None:
    reason = remove_tree(place / "made")
    assert isinstance(reason, PermissionError)
    assert [str(path.relative_to(place)) for path in sorted(place.rglob("*"))] == ["made", "made/a", "made/a/theirs"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user's")
def test_what_cannot_go_is_reported_and_the_rest_goes(place: Path) -> None:
    (place / "made/b").mkdir(parents=True)
    (place / "made/a").mkdir()
    for name in ("made/a/theirs", "made/b/own", "made/own"):
        (place / name).write_text("x")
    for name in ("made", "made/b"):
        os.chown(place / name, 65534, 65534)
    as_no_root(another_users_file, place)


def other_users_directories(place: Path) -> None:
    reason = remove_tree(place / "made")
    assert isinstance(reason, OSError)
    assert [os.listdir(place / "made" / name) for name in ("a", "b")] == [["theirs"], ["theirs"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user's")
def test_what_is_next_to_a_directory_that_can_be_read_only_goes(place: Path) -> None:
    # In two places: whichever comes first, something is left to do after it.
    for name in ("a/own", "a/theirs", "b/own", "b/theirs"):
        (place / "made" / name / "inner").mkdir(parents=True)
        (place / "made" / name / "inner/file").write_text("x")
    for path in (place / "made", *(place / "made").rglob("*")):
        os.chown(path, 65534, 65534)
    for name in ("a", "b"):
        os.chown(place / "made" / name / "theirs", 0, 0)
        (place / "made" / name / "theirs").chmod(0o744)
    as_no_root(other_users_directories, place)
    assert (place / "made/a/theirs/inner/file").exists()
