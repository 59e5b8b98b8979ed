"""Mounts within mounts on every engine: whatever lies in what, a tool sees what one small model says (nesting.py)."""

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Capability
from praxis_mcp.testing.bench import Bench
from tests.engines.mounts.nesting import LOOK, Nest, nests

pytestmark = pytest.mark.anyio

ENOUGH = 60
"""Layouts for one engine."""
AT_LEAST = 8
PATIENCE = 12.0
"""Seconds after which no further layout is tried."""
NEW = "written-by-the-tool"


async def test_every_nesting_shows_what_the_model_says(bench: Bench, tmp_path: Path) -> None:
    of_images = Capability.CACHE_DIRS not in bench.case.inexpressible
    if await bench.refuses(bench.case.sh("exit 1", mounts={str(tmp_path): "/praxis-m:rw"})):
        return
    if bench.case.holds_files_only:  # test_mount_races has what is refused there
        return
    began = time.monotonic()
    for number, nest in enumerate(nests(tmp_path, f"/praxis-{uuid4().hex[:8]}", of_images=of_images)):
        if number == ENOUGH or (number >= AT_LEAST and time.monotonic() - began > PATIENCE):
            break
        run = tmp_path / f"run{number}"
        run.mkdir()
        await check(bench, nest, run)


async def check(bench: Bench, nest: Nest, run: Path) -> None:
    """The tool sees what the model says, and no more is left on the host than what it has written."""
    fields: dict[str, Any] = {
        "mounts": {str(thing.source): thing.target + ":rw" * thing.writable for thing in nest.mounts}
    }
    if nest.caches:
        fields["cache_dirs"] = nest.caches
    if nest.working_dir:
        fields["working_dir"] = nest.working_dir
    if nest.artifacts:
        fields["artifacts"] = [f"{nest.artifacts}/{NEW}"]
    contract = bench.case.python(LOOK, nest.top, NEW, **fields)
    expected = nest.view()
    before = _on_the_host(nest)
    if missing := nest.missing():
        with pytest.raises(ExecutionError) as refusal:
            await bench.run(contract, ExecutionContext(directory=run))
        assert any(f"Create {place}" in (refusal.value.remedy or "") for place in missing), (str(nest), refusal.value)
        assert _on_the_host(nest) == before
        return
    try:
        result = await bench.run(contract, ExecutionContext(directory=run))
    finally:
        if nest.caches:
            bench.case.remove_caches(bench.plan(contract).blueprint)
    assert result.exit_code == 0, (str(nest), result.stderr.text)
    told = json.loads(result.output)
    found = {
        path: value if expected.get(path, [True])[-1] is not None else [*value[:2], None]
        for path, value in told["found"].items()
    }
    assert found == expected, str(nest)
    if nest.working_dir:
        assert told["cwd"] == nest.working_dir, str(nest)
    if nest.artifacts:
        assert [artifact.name for artifact in result.artifacts] == [NEW], str(nest)
    owners = {path: nest.provider(path) for path in expected}
    written = {
        owner.source / path[len(owner.target) + 1 :] / NEW
        for path, owner in owners.items()
        if owner is not None and owner.source is not None and owner.writable
    }
    assert set(_on_the_host(nest)) == {*before, *written}, str(nest)
    assert set(result.changed_files) == written, str(nest)


def _on_the_host(nest: Nest) -> list[Path]:
    return sorted(path for thing in nest.mounts if thing.source is not None for path in thing.source.rglob("*"))
