"""Between the check of a mount's source and the mount, a tool that can write around it may put something else there."""

from pathlib import Path

import pytest

from praxis_mcp.errors import ExecutionError, LimitUnsupported
from praxis_mcp.testing.bench import Bench

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("where", ["the source", "above the source"])
async def test_a_link_that_takes_the_place_of_a_judged_source_is_not_followed(
    bench: Bench, tmp_path: Path, where: str
) -> None:
    place = tmp_path / "data" / "in"
    place.mkdir(parents=True)
    (tmp_path / "private" / "in").mkdir(parents=True)
    (tmp_path / "private" / "key").write_text("SECRET")
    (tmp_path / "private" / "in" / "key").write_text("SECRET")
    contract = bench.case.sh("cat /praxis-in/key; echo x > /praxis-in/new", mounts={str(place): "/praxis-in:rw"})
    if await bench.refuses(contract):
        return
    plan = bench.plan(contract)
    swapped = place if where == "the source" else place.parent
    swapped.rename(tmp_path / "moved")
    swapped.symlink_to(tmp_path / "private")
    with pytest.raises(ExecutionError) as refusal:
        await bench.run_plan(plan)
    assert str(place) in str(refusal.value)
    assert "SECRET" not in str(refusal.value)
    assert sorted(path.name for path in (tmp_path / "private").rglob("*")) == ["in", "key", "key"]


async def test_a_directory_whose_entries_are_mounted_singly_follows_no_link_either(
    bench: Bench, tmp_path: Path
) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "file").write_text("file")
    (tmp_path / "private").write_text("SECRET")
    (outer / "link").symlink_to(tmp_path / "private")
    (tmp_path / "inner").mkdir()
    mounts = {str(outer): "/praxis-out", str(tmp_path / "inner"): "/praxis-out/made"}
    contract = bench.case.sh("cat /praxis-out/file /praxis-out/link; ls /praxis-out", mounts=mounts)
    if await bench.refuses(contract):
        return
    if bench.case.holds_files_only:
        with pytest.raises(LimitUnsupported, match=r"made is within|link in it is a link"):
            await bench.run(contract)
        return
    result = await bench.run(contract)
    assert result.output == "filefile\nlink\nmade\n"
