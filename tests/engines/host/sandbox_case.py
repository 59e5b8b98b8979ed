"""The sandbox engine as a case of the conformance suite, with an image that it takes from the local Docker daemon, or
else with one of this machine's own programs."""

import functools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.images.from_host import store_from_host
from praxis_mcp.images.store import ImageStore
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing import EngineCase
from tests.images.tars import image
from tests.kit import images, requirements
from tests.kit.ending import at_end

IMAGE = "python:3.11-slim"
HOST_IMAGE = "localhost/praxis-test-programs:1"
SHELL_PROGRAMS = (
    "/bin/sh", "cat", "chmod", "dd", "env", "false", "head", "id", "ln", "ls", "mkdir", "mkfifo", "mv", "printf", "rm",
    "sed", "seq", "sleep", "sort", "stat", "tail", "test", "touch", "true", "uname", "wc", "yes",
)  # fmt: skip


@functools.cache
def shared_store() -> Path:
    """The image store of this test process, gone when its tests have ended."""
    directory = Path(tempfile.mkdtemp(prefix="praxis-test-images-"))
    at_end.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


@functools.cache
def stored(reference: str) -> str:
    """What is run as that image, in the store where there is no Docker daemon to take it from."""
    if requirements.missing("docker") is None:
        return reference
    store = ImageStore(shared_store())
    if reference == IMAGE:
        store_from_host(store, HOST_IMAGE, ["python3", *SHELL_PROGRAMS])
        return HOST_IMAGE
    if reference in images.IMAGES:
        try:
            store.install(image(images.layer_of(reference), compress=False).content(), [reference])
        except images.ImageUnavailable as exc:
            pytest.skip(f"{reference} cannot be made: {exc}")
    return reference


class SandboxCase(EngineCase):
    name = "sandbox"
    bulk = 2_000_000  # through pipes, as local-plain
    marks = (pytest.mark.sandbox,)

    @property
    def lacks(self) -> frozenset[Capability]:
        return frozenset({Capability.PRIVILEGED, Capability.BUILD}) | find_cgroups().notes.keys()

    launcher = "own"
    warm: Mapping[str, Any] = {"enabled": False}

    def settings(self, **values: Any) -> Settings:
        sandbox = {"store": shared_store(), "launcher": self.launcher}
        return Settings.model_validate({"engines": {"sandbox": sandbox}, "warm": self.warm, **values})

    def engine(self, settings: Settings) -> ExecutionEngine:
        return SandboxExecutionEngine(settings)

    def contract(self, command: Sequence[str], **fields: Any) -> ToolContract:
        reference = stored(fields.pop("image", IMAGE))
        return ToolContract.create_dagger_tool("conformance", reference, list(command), **fields)

    def leftovers(self) -> list[str]:
        return control_groups(f"praxis-mcp-{os.getpid()}-")


def control_groups(prefix: str) -> list[str]:
    """Control groups of runs whose names begin so."""
    bases = set(find_cgroups().bases.values())
    return [str(place) for base in bases for place in base.glob(f"{prefix}*")]


CASE = SandboxCase()
