"""Control groups beyond what the conformance suite shows of them."""

import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.plans.model import Limits
from praxis_mcp.support.praxis_init import praxis_init_path

may_make_groups = pytest.mark.skipif(bool(find_cgroups().notes), reason="this user may make no cgroups")


@may_make_groups
@pytest.mark.anyio
@pytest.mark.parametrize("init", [praxis_init_path(), None], ids=["praxis-init", "a shell"])
async def test_a_command_begins_its_life_in_the_group_of_its_run(init: Path | None) -> None:
    run_id = secrets.token_hex(8)
    group = find_cgroups().make(run_id, Limits(timeout=1, pids=10), own_processes=0)
    try:
        command = [*group.prefix(init), "cat", "/proc/self/cgroup"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
        assert done.returncode == 0
        assert run_id in done.stdout
    finally:
        with anyio.fail_after(30):
            await group.remove()
    assert not any(place.exists() for place in group.places)


@may_make_groups
def test_engines_that_look_for_them_at_the_same_moment_all_find_them() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: find_cgroups(), range(64)))
    assert all(not each.notes for each in found)
