"""Control groups beyond what the conformance suite shows of them."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from praxis_mcp.engines.cgroups import find_cgroups


@pytest.mark.skipif(bool(find_cgroups().notes), reason="this user may make no cgroups")
def test_engines_that_look_for_them_at_the_same_moment_all_find_them() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: find_cgroups(), range(64)))
    assert all(not each.notes for each in found)
