"""A call on a real Dagger engine, cold and warm: compared with the same bare query on a held session, and with a
connection for every call.

The engine is the one that the environment names (``_EXPERIMENTAL_DAGGER_RUNNER_HOST`` and
``_EXPERIMENTAL_DAGGER_CLI_BIN``); a double would measure nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import dagger
from gql import GraphQLRequest

from benchmarks.calls import calling, connected, spawning
from benchmarks.measure import Report, Row, Work, in_turns
from benchmarks.startup import serving
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.dagger.cli import CLI_VARIABLE, RUNNER_VARIABLE
from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import WarmSettings

IMAGE = "busybox:1.36"
BARE = "one bare query, held session"
ENGINE = "DaggerExecutionEngine"
PER_CALL = "a connection for every call"
BARE_CACHED = "one bare query, cached"
PURE = "DaggerExecutionEngine, cache: pure"
WARM = "DaggerExecutionEngine, warm"
WARM_FILES = "DaggerExecutionEngine, warm, a writable mount"
OVER_STDIO = "tools/call over stdio, warm"
SPAWN = "bare subprocess"
COMMAND = ["/bin/echo", "hi"]
CANCELS = 10
FILL_TIMEOUT = 30.0
"""Seconds for an exec to be there."""
PAUSE = 0.5
"""Seconds between calls, in which an exec is started for the next one."""

ECHO = f"""\
name: noop
description: Says hi.
engine: dagger
image: {IMAGE}
command: [echo, hi]
"""
_TEXT = """query ($id: ContainerID!, $bust: String!) { loadContainerFromID(id: $id) {
  withEnvVariable(name: "BUST", value: $bust) { withExec(args: ["echo", "hi"], expect: ANY) { exitCode stdout stderr } }
} }"""


async def measure(rounds: int) -> list[Report]:
    """The tables; none where no real engine is named."""
    if not (os.environ.get(RUNNER_VARIABLE) and os.environ.get(CLI_VARIABLE)):
        print(f"dagger: left out, {RUNNER_VARIABLE} and {CLI_VARIABLE} name no real engine", file=sys.stderr)
        return []
    cold = Settings(warm=WarmSettings(enabled=False))
    async with DaggerExecutionEngine(cold) as engine, _held() as (ask, tar):
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
        warm = await _measure_warm(rounds, ask, tar)
    return [calls, warm, cancels]


async def _measure_warm(rounds: int, ask: Any, tar: str) -> Report:
    """Each round waits, unmeasured, until an exec waits for the next call."""
    async with AsyncExitStack() as stack:
        place = Path(await stack.enter_async_context(anyio.TemporaryDirectory(prefix="praxis-bench-")))
        (place / "work").mkdir()
        (place / "work" / "file").touch()
        (place / "tools" / "noop").mkdir(parents=True)
        (place / "tools" / "noop" / "contract.yaml").write_text(ECHO, encoding="utf-8")
        client = await stack.enter_async_context(connected(serving(place / "tools")))
        plain = await stack.enter_async_context(DaggerExecutionEngine())
        mounting = await stack.enter_async_context(DaggerExecutionEngine())
        works: dict[str, Work] = {
            BARE: _timed(lambda: ask(uuid4().hex)),
            WARM: _met(plain, _echo()),
            WARM_FILES: _met(mounting, _echo(mounts={str(place / "work"): "/work:rw"})),
            SPAWN: spawning(COMMAND),
            OVER_STDIO: _paced(calling(client)),
            PER_CALL: _timed(lambda: _connect_and_run(tar)),
        }
        against = {WARM: BARE, WARM_FILES: BARE, OVER_STDIO: SPAWN, PER_CALL: WARM}
        rows = await in_turns(works, rounds, against=against)
    note = "Bars: a connection for every call at least 60 x warm; tools/call at most 10 ms over the bare subprocess."
    return Report("Dagger: echo in busybox, an exec that waits", rows, note)


def _met(engine: DaggerExecutionEngine, contract: ToolContract) -> Work:
    """A call that an exec waits for; the first makes the pool know of it."""

    async def work() -> float:
        before = engine.warm()
        with anyio.fail_after(FILL_TIMEOUT):
            while before is not None and not before.waiting:
                await anyio.sleep(0.02)
                before = engine.warm()
        await anyio.sleep(PAUSE)
        began = time.perf_counter()
        await engine.execute(contract, {})
        took = time.perf_counter() - began
        after = engine.warm()
        assert before is None or (after is not None and after.hits > before.hits), "no exec waited"
        return took

    return work


def _paced(work: Work) -> Work:
    async def paced() -> float:
        await anyio.sleep(PAUSE)
        return await work()

    return paced


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
