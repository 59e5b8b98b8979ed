"""The sandbox engine as a case of the conformance suite, with images that it takes from the local Docker daemon."""

import functools
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing import EngineCase
from tests.kit.ending import at_end

IMAGE = "python:3.11-slim"


@functools.cache
def shared_store() -> Path:
    """The image store of this test process, gone when its tests have ended."""
    directory = Path(tempfile.mkdtemp(prefix="praxis-test-images-"))
    at_end.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


class SandboxCase(EngineCase):
    name = "sandbox"
    bulk = 2_000_000  # through pipes, as local-plain
    marks = (pytest.mark.docker, pytest.mark.sandbox)

    @property
    def lacks(self) -> frozenset[Capability]:
        return frozenset({Capability.PRIVILEGED}) | find_cgroups().notes.keys()

    launcher = "own"

    def settings(self, **values: Any) -> Settings:
        sandbox = {"store": shared_store(), "launcher": self.launcher}
        return Settings(engines={"sandbox": sandbox}, **values)  # pyright: ignore[reportArgumentType]

    def engine(self, settings: Settings) -> ExecutionEngine:
        return SandboxExecutionEngine(settings)

    def contract(self, command: Sequence[str], **fields: Any) -> ToolContract:
        image = fields.pop("image", IMAGE)
        return ToolContract.create_dagger_tool("conformance", image, list(command), **fields)

    def leftovers(self) -> list[str]:
        return control_groups(f"praxis-mcp-{os.getpid()}-")


def control_groups(prefix: str) -> list[str]:
    """Control groups of runs whose names begin so."""
    bases = set(find_cgroups().bases.values())
    return [str(place) for base in bases for place in base.glob(f"{prefix}*")]


CASE = SandboxCase()
