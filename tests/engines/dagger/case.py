"""The Dagger engine as a case of the conformance suite: over a real engine where one is named, else over the double."""

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing import EngineCase
from tests.dagger_double.install import install, remove_containers, running_containers
from tests.kit import requirements
from tests.kit.ending import at_end
from tests.kit.until import until_blocking

IMAGE = "python:3.11-slim"
GONE_WITHIN = 60.0
"""Seconds within which a returned call's container is gone: one that has nothing to run ends by itself."""
IS_REAL = requirements.missing("dagger_real") is None


@functools.cache
def double_state() -> Path:
    """The state of the double's engine that the tests of this process share, gone when they have ended."""
    state = Path(tempfile.mkdtemp(prefix="praxis-dagger-double-"))
    at_end.callback(shutil.rmtree, state, ignore_errors=True)
    at_end.callback(remove_containers, state)
    return state


@functools.cache
def saved_image() -> Path:
    """The image as a tar file: taken from the local Docker once, not once for every engine."""
    tar = double_state() / "image.tar"
    subprocess.run(["docker", "save", "--output", tar, IMAGE], check=True)
    return tar


def connection(state: Path) -> dict[str, Any]:
    """Settings (`engines.dagger`) by which an engine speaks to a double with this state."""
    return {"cli": install(state), "runner_host": "double://"}


class DaggerCase(EngineCase):
    name = "dagger"
    marks = (pytest.mark.docker, pytest.mark.dagger)

    def settings(self, **values: Any) -> Settings:
        if not IS_REAL:
            images = {IMAGE: saved_image()}
            values["engines"] = {"dagger": {**connection(double_state()), "images": images}}
        values.setdefault("warm", {"enabled": False})
        return Settings(**values)

    @property
    def lacks(self) -> frozenset[Capability]:
        return frozenset(
            {
                Capability.MEMORY_LIMIT,
                Capability.CPU_LIMIT,
                Capability.PIDS_LIMIT,
                Capability.READ_ONLY_ROOT,
                Capability.DROP_CAPABILITIES,
                Capability.NETWORK_HOST,
            }
        )

    def engine(self, settings: Settings) -> ExecutionEngine:
        return DaggerExecutionEngine(settings)

    def contract(self, command: Sequence[str], **fields: Any) -> ToolContract:
        image = fields.pop("image", IMAGE)
        return ToolContract.create_dagger_tool("conformance", image, list(command), **fields)

    def leftovers(self) -> list[str]:
        if IS_REAL:
            return []
        with suppress(AssertionError):
            until_blocking(lambda: not running_containers(double_state()), within=GONE_WITHIN)
        return running_containers(double_state())


CASE = DaggerCase()
