"""Directories that are held open: what is swapped or vanishes meanwhile is not followed, and harms nothing."""

import os
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from praxis_mcp.engines.dagger.mounts import upload_mount
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Mount
from praxis_mcp.support.rooted import MAX_WALK_DEPTH, HeldDirectory, descend, walk
from tests.kit.descriptors import open_below


def test_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="link"):
        HeldDirectory.at(tmp_path / "link" / "in")
    with HeldDirectory.at(tmp_path / "link" / "in", links=True) as held:
        assert list(held.entries()) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", "a\0"])
def test_a_name_is_one_component(name: str, tmp_path: Path) -> None:
    with HeldDirectory.at(tmp_path) as held, pytest.raises(OSError, match="is not the name of an entry"):
        held.make(name)


def test_a_directory_that_is_swapped_for_a_link_while_it_is_looked_through_is_left_out(tmp_path: Path) -> None:
    for name in ("top/a", "top/b", "outside"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
    with HeldDirectory.at(tmp_path / "top") as top:
        steps = walk(top)
        next(steps)
        for name in ("a", "b"):
            (tmp_path / "top" / name).rename(tmp_path / f"moved-{name}")
            (tmp_path / "top" / name).symlink_to(tmp_path / "outside")
        assert [path for path, _, _ in steps if "/" in path] == []


def test_a_fifo_in_the_place_of_a_file_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with HeldDirectory.at(tmp_path) as held, pytest.raises(OSError, match="is not a regular file"):
        held.read("pipe")


def test_permissions_are_not_changed_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "link").symlink_to("file")
    with HeldDirectory.at(tmp_path) as held, pytest.raises(OSError, match="link"):
        held.set_mode("link", 0o666)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_directory_is_reached_through_those_that_may_be_entered_and_not_listed() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(os.path.realpath(name))
        (place / "closed" / "mine").mkdir(parents=True)
        (place / "closed" / "mine" / "file").touch()
        place.chmod(0o755)
        (place / "closed").chmod(0o311)
        as_root = os.geteuid() == 0
        if as_root:
            os.seteuid(65534)
        try:
            with HeldDirectory.at(place / "closed" / "mine") as held:
                assert [entry.name for entry in held.entries()] == ["file"]
            for links in (False, True):
                with HeldDirectory.at(place / "closed", links=links, listed=False) as closed:
                    assert closed.look("mine") is not None
            with HeldDirectory.at(place) as top, descend(top, "closed/mine") as held:
                assert [entry.name for entry in held.entries()] == ["file"]
        finally:
            if as_root:
                os.seteuid(0)
            (place / "closed").chmod(0o755)


def test_directories_in_directories_are_gone_into_as_far_as_the_bound_with_few_descriptors(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(MAX_WALK_DEPTH + 20):
        for name in ("a", "b"):
            os.mkdir(name, dir_fd=here)
        inner = os.open("b", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with HeldDirectory.at(tmp_path) as top:
        paths = [path for path, _, _ in walk(top)]
        assert len(paths) == len(set(paths)) == 2 * (MAX_WALK_DEPTH + 1)
        assert all((tmp_path / path).is_dir() for path in paths)
        assert sorted(path for path, _, _ in walk(top, 1)) == ["a", "b", "b/a", "b/b"]
        for path, _, _ in walk(top):
            if path.count("/") == 9:
                break
    assert open_below(tmp_path) == []


def test_directories_that_are_closed_are_left_out_and_each_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(os.path.realpath(name))
        for inner in ("a/x", "b/x", "c/x"):
            (place / inner).mkdir(parents=True)
        place.chmod(0o755)
        for closed in ("a", "c"):
            (place / closed).chmod(0)
        as_root = os.geteuid() == 0
        if as_root:
            os.seteuid(65534)
        try:
            named: list[str] = []
            with HeldDirectory.at(place) as top:
                found = sorted(path for path, _, _ in walk(top, on_closed=lambda exc: named.append(exc.filename)))
                assert found == ["a", "b", "b/x", "c"]
                assert sorted(named) == [str(place / closed) + "/" for closed in ("a", "c")]
                with pytest.raises(PermissionError):
                    list(walk(top))
        finally:
            if as_root:
                os.seteuid(0)
            for closed in ("a", "c"):
                (place / closed).chmod(0o755)


def test_of_a_directory_with_very_many_entries_few_are_in_memory_at_once(tmp_path: Path) -> None:
    for number in range(4000):
        (tmp_path / f"{number}").touch()
    with HeldDirectory.at(tmp_path) as top:
        tracemalloc.start()
        try:
            assert sum(1 for _ in walk(top)) == 4000
            assert tracemalloc.get_traced_memory()[1] < 256 * 1024
        finally:
            tracemalloc.stop()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    """A directory in which files and directories come and go all the time."""
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            for number in range(20):
                place = tmp_path / f"d{number}"
                place.mkdir()
                (place / "file").touch()
                (place / "file").rename(place / "file~")
                (place / "file~").unlink()
                place.rmdir()

    for number in range(50):
        (tmp_path / f"stays{number}").touch()
    thread = threading.Thread(target=churn)
    thread.start()
    yield tmp_path
    ended.set()
    thread.join()


def test_what_vanishes_while_it_is_looked_at_is_left_out(busy: Path) -> None:
    for _ in range(300):
        with HeldDirectory.at(busy) as top:
            assert sum(path.startswith("stays") for path, _, _ in walk(top)) == 50


@pytest.mark.anyio
@pytest.mark.parametrize("closed", ["file", "directory"])
async def test_what_the_server_may_not_read_of_a_mount_is_named(closed: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "directory").mkdir(parents=True)
    (tmp_path / "data" / "file").touch()
    place = tmp_path / "data" / closed
    place.chmod(0)
    as_root = os.geteuid() == 0
    if as_root:
        for above in (tmp_path, *tmp_path.parents):
            if Path(tempfile.gettempdir()) in above.parents:  # pytest's directories are closed to other users
                above.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(ExecutionError, match=f"may not read {place}"):
            await upload_mount(Session.__new__(Session), Mount(tmp_path / "data", "/data"), None, "tool")
    finally:
        if as_root:
            os.seteuid(0)
        place.chmod(0o755)
