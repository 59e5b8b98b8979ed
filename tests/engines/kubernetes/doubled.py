"""The engine on a double of the Kubernetes API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.kubernetes.engine import KubernetesExecutionEngine
from praxis_mcp.settings.model import Settings
from tests.kit.until import until
from tests.kubernetes_double import KubernetesDouble

START_WITHIN = 60.0
"""Seconds for a pod, unless a test is about them."""


@dataclass
class Doubled:
    """An engine, and the API server that it talks to."""

    double: KubernetesDouble
    engine: KubernetesExecutionEngine

    async def call(self, contract: ToolContract | None = None) -> str:
        """The output of a call."""
        result = await self.engine.execute(contract or hello(), {})
        assert result.output is not None
        return result.output

    async def nothing_is_left(self) -> None:
        """Wait until no pod is there, nor a process of one."""
        await until(lambda: not self.double.store.names("pods"), what="the end of all pods")
        assert not [name for name, pod in self.double.pods.items() if pod.runs]


def hello(**fields: Any) -> ToolContract:
    """A tool that says hello."""
    command = fields.pop("command", ["echo", "hello"])
    return ToolContract.create_dagger_tool("hello", "busybox:1.36", command, **fields)


@asynccontextmanager
async def doubled(place: Path, *, warm: Any = None, empties: bool = True, **options: Any) -> AsyncIterator[Doubled]:
    """An engine on a double; when it is closed, nothing at all is left.

    Args:
        place: a directory of the test.
        warm: settings of what waits; None: nothing does.
        empties: whether pods are gone before the engine is closed.
        options: the engine's settings.
    """
    async with KubernetesDouble(place) as double:
        kubernetes = {"kubeconfig": double.kubeconfig, "start_timeout": START_WITHIN, **options}
        settings: Any = {"engines": {"kubernetes": kubernetes}, "warm": warm or {"enabled": False}}
        async with KubernetesExecutionEngine(Settings(root=place, **settings)) as engine:
            found = Doubled(double, engine)
            yield found
            if empties:
                await found.nothing_is_left()
        await until(lambda: not double.store.names(), what="the end of all that the server has made")
