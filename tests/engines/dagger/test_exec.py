"""A call's command in a Dagger container, where praxis-init in front of it is not what it should be."""

import platform
from pathlib import Path

import pytest

from praxis_mcp.errors import EngineUnavailable, ExecutionError
from praxis_mcp.support import praxis_init
from tests.engines.dagger.ground import new_ground, sh

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.dagger]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What stands in praxis-init's place for the machine that the engine is on."""
    monkeypatch.setattr(praxis_init, "_FOLDER", tmp_path)
    return tmp_path / f"praxis-init-{praxis_init.normalize_machine(platform.machine())}"


async def test_an_older_praxis_init_is_an_error_that_says_what_to_do_and_nothing_runs(
    state: Path, program: Path
) -> None:
    program.write_bytes(b"#!/bin/sh\nexit 125 # praxis-init 2\n\0")
    async with new_ground(state) as ground:
        with pytest.raises(EngineUnavailable, match="is not the praxis-init that this praxis-mcp needs") as caught:
            await ground.run(sh("true", network="bridge"))
    assert "native/build.py" in str(caught.value.remedy)


async def test_a_praxis_init_that_fails_without_a_report_is_an_error_and_not_the_tools_exit_code(
    state: Path, program: Path
) -> None:
    program.write_bytes(b"#!/bin/sh\nexit 125 # praxis-init %d\n\0" % praxis_init.INIT_VERSION)
    async with new_ground(state) as ground:
        with pytest.raises(ExecutionError, match="was not started: praxis-init failed"):
            await ground.run(sh("true", network="bridge"))
