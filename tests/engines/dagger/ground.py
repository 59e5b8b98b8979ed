"""Ground of the Dagger engine's own tests: engines over the double (each with an engine state of its own, so that it
can be broken), or over the real one where the environment names it."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.testing.bench import CALL_LIMIT
from tests.dagger_double.install import running_containers
from tests.engines.dagger.case import IS_REAL, connection

IMAGE = "busybox:1.36"
UNIQUE = "cat /proc/sys/kernel/random/uuid"
"""A command whose output tells whether it ran anew."""


@dataclass(frozen=True)
class Ground:
    """An engine under test. `state`: of the double's engine; None over the real one."""

    engine: DaggerExecutionEngine
    state: Path | None

    async def run(
        self, contract: ToolContract, context: ExecutionContext | None = None, **arguments: Any
    ) -> ExecutionResult:
        plan = build_plan(contract, arguments, self.engine.settings)
        with anyio.fail_after(CALL_LIMIT):
            return await self.engine.run(plan, context or ExecutionContext())

    def sessions(self) -> int:
        """How many sessions the double has begun."""
        assert self.state is not None
        log = self.state / "sessions"
        return len(log.read_text().splitlines()) if log.exists() else 0


def sh(script: str, *words: str, **fields: Any) -> ToolContract:
    """A contract that runs shell source in busybox."""
    return ToolContract.create_dagger_tool(
        "tool", fields.pop("image", IMAGE), ["sh", "-c", script, "sh", *words], **fields
    )


def settings_for(connection: dict[str, Any], **values: Any) -> Settings:
    """Settings whose `engines.dagger` is `connection`, and by which nothing waits for calls, unless `values` say so."""
    engines: Any = {**values.pop("engines", {}), "dagger": connection}
    return Settings(engines=engines, **{"warm": {"enabled": False}, **values})


@asynccontextmanager
async def new_ground(state: Path, *, leaves_none: bool = True, **values: Any) -> AsyncIterator[Ground]:
    """An engine over the double with that state, or over the real one; `values`: see `settings_for`. When it is left,
    no process of it is, nor, unless `leaves_none` is False, a container."""
    before = cli_processes()
    settings = settings_for({} if IS_REAL else connection(state), **values)
    async with DaggerExecutionEngine(settings) as engine:
        yield Ground(engine, None if IS_REAL else state)
    assert cli_processes() == before
    assert IS_REAL or not leaves_none or running_containers(state) == []


def cli_processes() -> list[int]:
    """The processes of `dagger session`, the double's or the real one's, that this test process has started."""
    found: list[int] = []
    for pid in _children(os.getpid()):
        with suppress(FileNotFoundError):
            if b"session" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _children(parent: int) -> Iterator[int]:
    for task in Path(f"/proc/{parent}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that ended just now
            yield from map(int, (task / "children").read_text().split())
