"""The Docker engine as a case of the conformance suite."""

import os
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.engines.docker.ownership import cache_volume
from praxis_mcp.plans.model import Blueprint
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing import EngineCase
from tests.kit.until import until_blocking

REMOVED_WITHIN = 60.0
IMAGE = "python:3.11-slim"


class DockerCase(EngineCase):
    name = "docker"
    marks = (pytest.mark.docker,)

    def settings(self, **values: Any) -> Settings:
        return Settings(**values, warm={"enabled": False})  # pyright: ignore[reportArgumentType]

    def engine(self, settings: Settings) -> ExecutionEngine:
        return DockerSDKExecutionEngine(settings)

    def contract(self, command: Sequence[str], **fields: Any) -> ToolContract:
        image = fields.pop("image", IMAGE)
        return ToolContract.create_dagger_tool("conformance", image, list(command), **fields)

    def leftovers(self) -> list[str]:
        return containers(f"praxis-mcp.pid={os.getpid()}")

    def remove_caches(self, blueprint: Blueprint) -> None:
        for directory in blueprint.cache_dirs:
            remove = ["docker", "volume", "rm", cache_volume(blueprint, directory)]
            # By the warm container of the call, whose removal nobody waits for, it may be in use still.
            until_blocking(
                lambda remove=remove: subprocess.run(remove, capture_output=True, check=False).returncode == 0,
                within=REMOVED_WITHIN,
                what=f"{remove[-1]} is removed",
            )

    def file_binding(self, path: str) -> Binding:
        return Binding(kind=BindKind.FILE, target=path)


def containers(label: str, *more: str) -> list[str]:
    """Containers with that label, running or not, one line each: id, state and labels. `more`: labels, or ``status=…``,
    that they have too."""
    template = "{{.ID}} {{.Status}} {{.Labels}}"
    filters = [f"label={label}", *(each if each.startswith("status=") else f"label={each}" for each in more)]
    options = [word for each in filters for word in ("--filter", each)]
    command = ["docker", "ps", "--all", "--no-trunc", *options, "--format", template]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


CASE = DockerCase()
