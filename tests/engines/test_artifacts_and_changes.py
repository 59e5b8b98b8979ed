"""What is taken from an artifact directory, and which changes in writable mounts are told."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from praxis_mcp.engines import artifacts, changes
from praxis_mcp.engines.artifacts import (
    adopt_artifact_directory,
    collect_artifacts,
    copy_artifacts,
    make_artifact_directory,
)
from praxis_mcp.engines.base import Artifact, ExecutionContext
from praxis_mcp.engines.changes import ChangeWatch
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Blueprint, Call, Limits, Mount, Plan, Where

pytestmark = pytest.mark.anyio


def plan_for(*patterns: str) -> Plan:
    blueprint = Blueprint("tool", Where.CONTAINER, (), Limits(60), artifact_dir="/out", artifacts=patterns)
    return Plan(blueprint, Call("run"))


def fill(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/out/*.png", ["a.png", "b.png"]),
        ("/out/**/*.png", ["a.png", "b.png", "sub/c.png", "sub/sub/d.png"]),
        ("/out/sub/**", ["sub/c.png", "sub/e.txt", "sub/sub/d.png"]),
        ("/out/?.png", ["a.png", "b.png"]),
        ("/out/[!a].png", ["b.png"]),
        ("/out/sub/e.txt", ["sub/e.txt"]),
        ("/out/*", ["a.png", "b.png", "x+y.txt"]),
        ("/out/x+y.txt", ["x+y.txt"]),
        ("/out/*.jpg", []),
    ],
)
async def test_a_pattern_names_files_as_a_shell_would(pattern: str, expected: list[str], tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png", "x+y.txt", "sub/c.png", "sub/e.txt", "sub/sub/d.png")
    assert [item.name for item in (await collect_artifacts(plan_for(pattern), tmp_path)).taken] == expected


async def test_links_lead_nowhere(tmp_path: Path) -> None:
    fill(tmp_path, "secret/key", "out/real")
    (tmp_path / "out" / "file").symlink_to(tmp_path / "secret" / "key")
    (tmp_path / "out" / "directory").symlink_to(tmp_path / "secret")
    (tmp_path / "out" / "loop").symlink_to(tmp_path / "out")
    found = await collect_artifacts(plan_for("/out/**"), tmp_path / "out")
    assert [item.name for item in found.taken] == ["real"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["real"]
    assert (tmp_path / "secret" / "key").read_text() == "secret/key"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm on a file system of its own")
    with tempfile.TemporaryDirectory(dir=other) as place:
        yield Path(place)


async def test_no_more_than_a_call_may_hand_back_is_copied_from_another_file_system(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MAX_TOTAL_SIZE", 1 << 20)
    made = elsewhere / "artifacts"
    fill(made, "a.png", "sub/b.png", "unwanted.txt")
    for name in ("huge.png", "huge.txt"):
        with (made / name).open("wb") as file:
            file.truncate(64 << 20)  # without a single block
    plan, context = plan_for("/out/**.png"), ExecutionContext(directory=tmp_path)
    directory = await make_artifact_directory(plan, context)
    assert directory is not None
    left_out = await adopt_artifact_directory(plan, context, made)
    copied = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    assert (copied, left_out) == (["a.png", "sub/b.png"], ("huge.png",))
    found = await collect_artifacts(plan, directory)
    assert [(item.name, item.file.read_text()) for item in found.taken] == [
        ("a.png", "a.png"),
        ("sub/b.png", "sub/b.png"),
    ]


@pytest.mark.parametrize(
    ("bound", "value", "taken", "left_out"),
    [
        ("MAX_ARTIFACTS", 2, ["1", "22"], ["333", "4"]),
        ("MAX_TOTAL_SIZE", 4, ["1", "22", "4"], ["333"]),
        ("MAX_TOTAL_SIZE", 0, [], ["1", "22", "333", "4"]),
    ],
)
async def test_what_comes_back_is_bounded_and_what_is_left_out_is_named(
    bound: str, value: int, taken: list[str], left_out: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "1", "22", "333", "4", "unasked/5")
    monkeypatch.setattr(artifacts, bound, value)
    found = await collect_artifacts(plan_for("/out/*"), tmp_path)
    assert [item.name for item in found.taken] == taken
    assert list(found.left_out) == left_out


async def test_what_is_not_taken_is_removed(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "scratch.bin", "sub/b.png", "sub/c.txt", "sub/deep/d.txt", "sub.png/e.txt")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "closed").mkdir(mode=0o500)
    await collect_artifacts(plan_for("/out/**/*.png"), tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a.png", "sub", "sub/b.png"]


async def test_a_change_that_keeps_size_and_time_is_found_by_its_inode(tmp_path: Path) -> None:
    fill(tmp_path, "same", "replaced")
    status = (tmp_path / "replaced").stat()
    watch = await ChangeWatch.start([Mount(tmp_path, "/data", writable=True)])
    (tmp_path / "new").write_text("otherwis")
    os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "new").rename(tmp_path / "replaced")
    assert (await watch.changes()).paths == (tmp_path / "replaced",)


async def test_a_mounted_file_is_watched_like_a_directory(tmp_path: Path) -> None:
    fill(tmp_path, "file", "neighbour")
    watch = await ChangeWatch.start([Mount(tmp_path / "file", "/data/file", writable=True)])
    fill(tmp_path, "neighbour2")
    (tmp_path / "file").write_text("changed")
    assert (await watch.changes()).paths == (tmp_path / "file",)


async def test_read_only_mounts_are_not_looked_at(tmp_path: Path) -> None:
    watch = await ChangeWatch.start([Mount(tmp_path, "/data")])
    fill(tmp_path, "new")
    assert (await watch.changes()).paths == ()


async def test_too_many_files_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_COMPARED_ENTRIES", 2)
    fill(tmp_path, "1", "2", "3")
    watch = await ChangeWatch.start([Mount(tmp_path, "/data", writable=True)])
    fill(tmp_path, "4")
    assert (await watch.changes()).paths == ()


def test_artifacts_are_copied_through_no_link(tmp_path: Path) -> None:
    fill(tmp_path, "run/a", "run/sub/b", "outside/precious")
    artifacts = [Artifact(name, tmp_path / "run" / name, len(name)) for name in ("a", "sub/b")]
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(tmp_path / "outside" / "precious")
    copy_artifacts(artifacts, out)
    assert {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()} == {
        "a": "run/a",
        "sub/b": "run/sub/b",
    }
    assert not (out / "a").is_symlink()
    (out / "sub").rename(out / "moved")
    (out / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(ExecutionError, match="sub/b cannot be copied"):
        copy_artifacts(artifacts, out)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["precious"]
    assert (tmp_path / "outside" / "precious").read_text() == "outside/precious"
