"""A call on a real Dagger engine: beside the same bare query on a held session, and beside a connection for every call.

The engine is the one that the environment names (``_EXPERIMENTAL_DAGGER_RUNNER_HOST`` and
``_EXPERIMENTAL_DAGGER_CLI_BIN``); a double would measure nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import dagger
from gql import GraphQLRequest

from benchmarks.measure import Report, Row, Work, in_turns
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.dagger import DaggerExecutionEngine
from praxis_mcp.engines.dagger_cli import CLI_VARIABLE, RUNNER_VARIABLE

IMAGE = "busybox:1.36"
BARE = "one bare query, held session"
ENGINE = "DaggerExecutionEngine"
PER_CALL = "a connection for every call"
BARE_CACHED = "one bare query, cached"
PURE = "DaggerExecutionEngine, cache: pure"
CANCELS = 10

_TEXT = """query ($id: ContainerID!, $bust: String!) { loadContainerFromID(id: $id) {
  withEnvVariable(name: "BUST", value: $bust) { withExec(args: ["echo", "hi"], expect: ANY) { exitCode stdout stderr } }
} }"""


async def measure(rounds: int) -> list[Report]:
    """The tables; none where no real engine is named."""
    if not (os.environ.get(RUNNER_VARIABLE) and os.environ.get(CLI_VARIABLE)):
        print(f"dagger: left out, {RUNNER_VARIABLE} and {CLI_VARIABLE} name no real engine", file=sys.stderr)
        return []
    async with DaggerExecutionEngine() as engine, _held() as (ask, tar):
        works: dict[str, Work] = {
            BARE: _timed(lambda: ask(uuid4().hex)),
            ENGINE: _timed(lambda: engine.execute(_echo(), {})),
            PER_CALL: _timed(lambda: _connect_and_run(tar)),
            BARE_CACHED: _timed(lambda: ask("same")),
            PURE: _timed(lambda: engine.execute(_echo(cache="pure"), {})),
        }
        against = {ENGINE: BARE, PER_CALL: ENGINE, PURE: BARE_CACHED}
        calls = Report(
            "Dagger: echo in busybox, cold exec",
            await in_turns(works, rounds, against=against),
            "Bars: the engine at most 1.1 x the bare query; a connection for every call at least 7 x the engine.",
        )
        cancels = Report(
            "Dagger: from a cancellation until no process of the tool is left",
            [Row("cancelled mid-exec", [await _cancel(engine) for _ in range(CANCELS)])],
            "Bar: 2000 ms.",
        )
    return [calls, cancels]


_CONTRACTS: dict[str, ToolContract] = {}


def _echo(**fields: Any) -> ToolContract:
    key = repr(fields)
    if key not in _CONTRACTS:
        _CONTRACTS[key] = ToolContract.create_dagger_tool("echo", IMAGE, ["echo", "hi"], **fields)
    return _CONTRACTS[key]


def _timed(call: Any) -> Work:
    async def work() -> float:
        began = time.perf_counter()
        await call()
        return time.perf_counter() - began

    return work


@asynccontextmanager
async def _held() -> AsyncIterator[tuple[Any, str]]:
    """What asks the bare query in a session of the SDK's own, and the image as a tar file."""
    async with anyio.TemporaryDirectory(prefix="praxis-bench-") as directory:
        tar = f"{directory}/image.tar"
        await anyio.run_process(["docker", "save", "--output", tar, IMAGE])
        async with dagger.Connection(dagger.Config(retry=None)) as client:
            container = await client.container().import_(client.host().file(tar)).id()
            session = await client._ctx.conn.session.get_session()

            async def ask(bust: str) -> None:
                request = GraphQLRequest(_TEXT, variable_values={"id": container, "bust": bust})
                answer = await session.execute(request)
                assert answer["loadContainerFromID"]["withEnvVariable"]["withExec"]["stdout"] == "hi\n"

            yield ask, tar


async def _connect_and_run(tar: str) -> None:
    """As the Praxis SDK does it: a connection, a chain of SDK calls, the end of the connection."""
    async with dagger.Connection(dagger.Config(retry=None)) as client:
        container = client.container().import_(client.host().file(tar))
        container = container.with_env_variable("BUST", uuid4().hex)
        container = container.with_exec(["echo", "hi"], expect=dagger.ReturnType.ANY)
        assert (await container.exit_code(), await container.stdout(), await container.stderr()) == (0, "hi\n", "")


async def _cancel(engine: DaggerExecutionEngine) -> float:
    marker = uuid4().hex
    contract = ToolContract.create_dagger_tool("sleep", IMAGE, ["sh", "-c", "echo ready; sleep 1000", "sh", marker])
    ready = anyio.Event()
    gone = 0.0
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.execute, contract, {}, ExecutionContext(on_output=lambda *_: ready.set()))
            await ready.wait()
            began = time.perf_counter()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                while any(marker in _words(place) for place in Path("/proc").glob("[0-9]*")):
                    await anyio.sleep(0.005)
                gone = time.perf_counter() - began
    return gone


def _words(place: Path) -> str:
    try:
        return (place / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
