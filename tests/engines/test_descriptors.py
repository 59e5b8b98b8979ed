"""Descriptors that hold what is mounted: a shortage is an error, and a call that runs keeps none of them."""

import itertools
import os
import resource
from pathlib import Path

import anyio
import pytest

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.mounts.layout import MountLayout
from praxis_mcp.engines.mounts.nested import with_room
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Blueprint, Limits, Mount, Where
from praxis_mcp.testing.bench import CALL_LIMIT, Bench
from tests.kit.descriptors import open_below, open_descriptors

pytestmark = pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="Linux alone has such descriptors")


def crowded(place: Path) -> list[Mount]:
    """A directory of 20 entries, and a mount in it whose place is missing there."""
    (place / "inner").mkdir()
    for number in range(20):
        (place / "outer" / f"{number}").mkdir(parents=True)
    return [Mount(place / "outer", "/m"), Mount(place / "inner", "/m/made")]


def test_where_no_descriptors_are_left_nothing_is_missing_without_a_word(tmp_path: Path) -> None:
    mounts = crowded(tmp_path)
    layout = MountLayout()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = set(map(int, open_descriptors()))
    *_, last = itertools.islice((number for number in itertools.count() if number not in used), 10)
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
    try:
        layout.lay(mounts[0])
        with pytest.raises(ExecutionError, match="cannot be opened: Too many open files"):
            layout.lay(mounts[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        layout.close()


def test_making_room_holds_no_descriptors(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    blueprint = Blueprint("tool", Where.CONTAINER, ("docker",), Limits(60), mounts=tuple(crowded(tmp_path)))
    assert len(with_room(blueprint, tmp_path / "scratch").mounts) == 22
    assert open_below(tmp_path) == []


@pytest.mark.anyio
async def test_a_call_that_runs_holds_no_descriptors_of_its_mounts(bench: Bench, tmp_path: Path) -> None:
    mounts = {str(mount.source): mount.target for mount in crowded(tmp_path)}
    contract = bench.case.sh("echo ready; exec sleep 1000", mounts=mounts)
    if await bench.refuses(contract) or bench.case.holds_files_only:
        return
    ready = anyio.Event()
    held: list[str] = []
    context = ExecutionContext(on_output=lambda *_: ready.set())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, contract, context)
        with anyio.fail_after(CALL_LIMIT):
            await ready.wait()
        held += open_below(tmp_path)
        tasks.cancel_scope.cancel()
    assert held == []
