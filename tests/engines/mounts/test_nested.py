"""A read-only mount is read-only to its last file, whatever file systems the host has mounted below it."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.engines.mounts import nested as module
from praxis_mcp.engines.mounts.nested import MAX_SUBMOUNTS, submounts
from praxis_mcp.errors import ExecutionError
from tests.engines.docker.bench import bench_on, tool


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """A directory with other file systems below: one in the other, and a space in a name."""
    source = tmp_path / "source"
    mounted: list[Path] = []
    try:
        for place in (source / "sub dir", source / "sub dir/deep"):
            place.mkdir(parents=True)
            try:
                subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("this user may mount nothing")
            mounted.append(place)
            (place / "note").write_text("the host's")
        yield source
    finally:
        for place in reversed(mounted):
            subprocess.run(["umount", place], check=True)


@pytest.mark.anyio
@pytest.mark.docker
@pytest.mark.parametrize("warm", [False, True])
async def test_what_is_mounted_below_a_read_only_mount_is_seen_and_not_written(source: Path, warm: bool) -> None:
    script = """
        cat "/m/sub dir/note" "/m/sub dir/deep/note"
        for place in /m "/m/sub dir" "/m/sub dir/deep"; do touch "$place/x" 2>/dev/null && echo "wrote to $place"; done
        true
    """
    contract = tool(script, mounts={str(source): "/m"})
    settings: dict[str, Any] | None = {"enabled": True} if warm else None
    async with bench_on(warm=settings) as bench:
        for _ in range(2 if warm else 1):
            result = await bench.run(contract)
            assert result.output == "the host'sthe host's", result.stderr.text
    assert list(source.rglob("x")) == []


@pytest.mark.anyio
@pytest.mark.docker
async def test_a_mount_of_the_contract_comes_before_what_the_host_has_there(source: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/note").write_text("the contract's")
    contract = tool('cat "/m/sub dir/note"', mounts={str(source): "/m", str(tmp_path / "own"): "/m/sub dir"})
    async with bench_on() as bench:
        assert (await bench.run(contract)).output == "the contract's"


@pytest.mark.anyio
@pytest.mark.docker
async def test_a_mount_that_another_one_covers_is_not_asked_for(source: Path) -> None:
    covered = source / "sub dir"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", covered], check=True)
    try:
        async with bench_on() as bench:
            result = await bench.run(tool('ls -A "/m/sub dir"; touch "/m/sub dir/x" 2>/dev/null && echo wrote; true',
                                          mounts={str(source): "/m"}))  # fmt: skip
        assert (result.exit_code, result.output) == (0, "")
    finally:
        subprocess.run(["umount", covered], check=True)


@pytest.fixture
def another_users(tmp_path: Path) -> Iterator[Path]:
    """A directory with a FUSE file system of another user's, whom alone it answers; nobody need serve it for that."""
    place = tmp_path / "theirs"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("this user has no FUSE")
    try:
        options = f"fd={device},rootmode=40000,user_id=65534,group_id=65534"
        if libc.mount(b"theirs", os.fsencode(place), b"fuse", 0, options.encode()) != 0:
            pytest.skip("this user may mount nothing")
        try:
            yield place
        finally:
            assert libc.umount2(os.fsencode(place), 0) == 0
    finally:
        os.close(device)


@pytest.mark.anyio
@pytest.mark.docker
async def test_a_file_system_that_the_daemon_may_not_look_at_is_named(another_users: Path) -> None:
    async with bench_on() as bench:
        with pytest.raises(ExecutionError, match="may not look at") as failure:
            await bench.run(tool("true", mounts={str(another_users.parent): "/m"}))
    assert str(another_users) in failure.value.message
    assert "allow_root" in (failure.value.remedy or "")


def test_only_what_is_below_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    mounts = [
        "1 1 /", "2 1 /a", "3 2 /a/b", "4 3 /a/b", "5 2 /a/with\\040space", "6 1 /ab", "7 1 /b/a/b", "8 4 /a/b/deep",
        "10 2 /a/c", "11 10 /a/c/gone", "12 11 /a/c/gone/too", "13 10 /a/c", "14 13 /a/c/new",
    ]  # fmt: skip
    table.write_text("".join("{} {} 98:0 / {} rw - ext4 /dev/x rw\n".format(*mount.split()) for mount in mounts))
    monkeypatch.setattr(module, "_TABLE", table)
    assert submounts(Path("/a")) == ["/a/b", "/a/b/deep", "/a/c", "/a/c/new", "/a/with space"]
    table.write_text(
        "".join(f"{number} 1 98:0 / /a/{number} rw - ext4 /dev/x rw\n" for number in range(MAX_SUBMOUNTS + 1))
    )
    with pytest.raises(ExecutionError, match="too many") as failure:
        submounts(Path("/a"))
    assert failure.value.remedy
    monkeypatch.setattr(module, "_TABLE", tmp_path / "none")
    assert submounts(Path("/a")) == []
