"""A read-only mount is read-only to its last file, whatever file systems the host has mounted below it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.engines import submounts as module
from praxis_mcp.engines.submounts import MAX_SUBMOUNTS, submounts
from praxis_mcp.errors import ExecutionError
from tests.engines.docker_bench import bench_on, tool


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


def test_only_what_lies_below_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    places = ["/", "/a", "/a/b", "/a/b", "/a/with\\040space", "/ab", "/b/a/b"]
    table.write_text("".join(f"36 35 98:0 / {place} rw - ext4 /dev/x rw\n" for place in places))
    monkeypatch.setattr(module, "_TABLE", table)
    assert submounts(Path("/a")) == ["/a/b", "/a/with space"]
    table.write_text("".join(f"36 35 98:0 / /a/{number} rw - ext4 /dev/x rw\n" for number in range(MAX_SUBMOUNTS + 1)))
    with pytest.raises(ExecutionError, match="too many") as failure:
        submounts(Path("/a"))
    assert failure.value.remedy
    monkeypatch.setattr(module, "_TABLE", tmp_path / "none")
    assert submounts(Path("/a")) == []
