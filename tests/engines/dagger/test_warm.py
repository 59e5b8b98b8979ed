"""Execs of Dagger that wait for their call: when there are any, what a call in one is like, and that none stays."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.dagger.engine import DaggerExecutionEngine
from praxis_mcp.engines.dagger.errors import SessionLost
from praxis_mcp.engines.dagger.query import Field
from praxis_mcp.engines.dagger.warm import WaitingQuery, WarmDagger, WarmExec
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.engines.warm.counts import PoolMetrics
from praxis_mcp.engines.warm.pool import WarmPool
from praxis_mcp.errors import ExecutionTimeout
from praxis_mcp.plans.build import build_plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.praxis_init import praxis_init_path
from praxis_mcp.testing.bench import CALL_LIMIT, processes
from tests.dagger_double.install import remove_containers, running_containers
from tests.engines.dagger.case import IS_REAL
from tests.engines.dagger.ground import Ground, cli_processes, new_ground, settings_for, sh
from tests.kit.until import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.docker,
    pytest.mark.dagger,
    pytest.mark.skipif(praxis_init_path() is None, reason="praxis-init is not built here"),
]

INIT = "cat /proc/1/cmdline | tr '\\0' ' '"
"""Tells whether the call met an exec that waited."""


@pytest.fixture(scope="module")
async def ground(state: Path, anyio_backend: str) -> AsyncIterator[Ground]:
    """An engine with no waiting execs but those that a test asks for."""
    async with new_ground(state, warm={"max_per_tool": 0}) as ground:
        yield ground


@pytest.fixture
async def own(state: Path) -> AsyncIterator[Ground]:
    """As `ground`, but a test's own, whose session it may break."""
    async with new_ground(state, warm={"max_per_tool": 0}) as ground:
        yield ground


def pool(ground: Ground) -> WarmPool[Any, WarmExec]:
    return ground.engine._warm_execs().pool


def metrics(ground: Ground) -> PoolMetrics:
    assert pool(ground)  # made with the first call that may meet one, which another test may not have made yet
    found = ground.engine.warm()
    assert found is not None
    return found


async def warmed(ground: Ground, contract: ToolContract) -> WarmExec:
    """See to it that an exec waits for the contract's next call."""
    plan = build_plan(contract, {}, ground.engine.settings)
    async with ground.engine._sessions.lease() as session:
        base = await ground.engine._base_container(session, plan.blueprint, None)
        key = WarmDagger.key(session, plan, base)
        assert key is not None
        await pool(ground).fill(key)
    return pool(ground).waiting[-1]


async def is_warm(ground: Ground, contract: ToolContract) -> bool:
    """Run a contract; whether it met an exec that waited."""
    hits = metrics(ground).hits
    assert (await ground.run(contract)).exit_code == 0
    return metrics(ground).hits > hits


def processes_in(workdir: str) -> list[int]:
    """Processes anywhere on this machine, in containers too, whose working directory has that name there."""
    found: list[int] = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(place / "cwd") == workdir:
                found.append(int(place.name))
        except OSError:  # it ended just now
            continue
    return found


@pytest.fixture
def workdir() -> str:
    """A working directory by which a test's waiting execs are told from others'."""
    return f"/waiting-{uuid4().hex}"


# --- when there is one ------------------------------------------------------------------------------------------------


async def test_the_second_call_of_a_tool_meets_an_exec_that_waited_and_none_stays(state: Path, workdir: str) -> None:
    async with new_ground(state, warm={}) as ground:
        contract = sh(INIT, working_dir=workdir)
        first = await ground.run(contract)
        await until(lambda: pool(ground).waiting)
        second = await ground.run(contract)
        assert [" wait " in result.output for result in (first, second)] == [True, True]
        assert (second.exit_code, second.image) == (0, first.image)
        assert (metrics(ground).hits, metrics(ground).misses) == (1, 1)
        await until(lambda: pool(ground).waiting)
        assert processes_in(workdir)
    assert processes_in(workdir) == []


async def test_no_two_calls_share_a_container(ground: Ground) -> None:
    contract = sh("cat /tmp/trace; echo left > /tmp/trace")
    for _ in range(2):
        await warmed(ground, contract)
        assert (await ground.run(contract)).output == ""
    await warmed(ground, contract)
    assert await is_warm(ground, contract)


async def test_a_contract_or_the_settings_may_do_without_and_pure_calls_do(ground: Ground, state: Path) -> None:
    misses = metrics(ground).misses
    await ground.run(sh("true", warm=False))
    await ground.run(sh("true", cache="pure"))
    assert metrics(ground).misses == misses
    engine = DaggerExecutionEngine(settings_for({}, warm={"enabled": False}))
    assert engine.warm() is None

    async def reason(engine: DaggerExecutionEngine, **fields: Any) -> str:
        return await engine.find_cold_reason(build_plan(sh("true", **fields), {}, engine.settings))

    usual = DaggerExecutionEngine(settings_for({}, warm={}))
    assert await reason(usual) == ""
    assert await reason(usual, warm=False) == "the contract says warm: false"
    assert await reason(usual, cache="pure") == "Dagger answers equal calls from its cache (cache: pure)"
    assert await reason(engine) == "warm.enabled is false"


async def test_a_call_whose_contract_is_not_served_any_more_neither_meets_nor_leaves_one(state: Path) -> None:
    async with new_ground(state, warm={}) as ground:
        await ground.run(sh("true"), ExecutionContext(is_served=lambda: False))
        assert (metrics(ground).hits, metrics(ground).misses) == (0, 0)
        assert not pool(ground)._shelves


async def test_a_burst_above_the_pool_starts_one_for_each_of_the_rest(ground: Ground) -> None:
    contract = sh(INIT)
    for _ in range(2):
        await warmed(ground, contract)
    before = metrics(ground)
    results: list[ExecutionResult] = []

    async def call() -> None:
        results.append(await ground.run(contract))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(call)
    assert all(" wait " in result.output for result in results)
    after = metrics(ground)
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 2)


async def test_what_a_mount_held_when_the_exec_was_started_is_never_seen_instead_of_what_it_holds(
    ground: Ground, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("old")
    contract = sh("cat /mounted/data", mounts={str(tmp_path): "/mounted"})
    await warmed(ground, contract)
    (tmp_path / "data").write_text("old")  # another time, the same content
    assert await is_warm(ground, contract)
    await warmed(ground, contract)
    (tmp_path / "data").write_text("new")
    hits = metrics(ground).hits
    assert (await ground.run(contract)).output == "new"
    assert metrics(ground).hits == hits


async def test_changes_in_a_writable_mount_come_back_and_the_next_exec_has_them(ground: Ground, tmp_path: Path) -> None:
    contract = sh("echo line >> /work/log; wc -l < /work/log", mounts={str(tmp_path): "/work:rw"})
    for number in (1, 2):
        await warmed(ground, contract)
        hits = metrics(ground).hits
        result = await ground.run(contract)
        assert (result.output, result.changed_files) == (f"{number}\n", (tmp_path / "log",))
        assert metrics(ground).hits == hits + 1
    assert (tmp_path / "log").read_text() == "line\nline\n"


async def test_the_engines_of_a_process_share_one_budget() -> None:
    async with EngineRegistry(Settings()) as registry:
        assert registry.get("dagger").warm_budget is registry.get("docker").warm_budget


# --- what goes wrong --------------------------------------------------------------------------------------------------


async def test_an_exec_that_is_gone_before_its_call_is_done_without(ground: Ground, workdir: str) -> None:
    contract = sh("echo well", working_dir=workdir)
    waiting = await warmed(ground, contract)
    for pid in processes_in(workdir):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not waiting.is_fresh())
    assert not await is_warm(ground, contract)


async def test_praxis_init_killed_during_a_call_gives_a_result_and_has_not_known_its_secrets(
    ground: Ground, workdir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARM_TOKEN", "s3cr3t-value")
    secret = {"TOKEN": {"secret": "WARM_TOKEN"}}
    # More than a secret's length: the end might be the beginning of one, and is held back.
    contract = sh("echo ready ready ready; exec sleep 1000", working_dir=workdir, env=secret)
    await warmed(ground, contract)
    (init,) = processes_in(workdir)
    heard = anyio.Event()
    results: list[ExecutionResult] = []

    async def call() -> None:
        results.append(await ground.run(contract, ExecutionContext(on_output=lambda *_: heard.set())))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
        assert b"s3cr3t" not in Path(f"/proc/{init}/environ").read_bytes()
        os.kill(init, signal.SIGKILL)
    assert (results[0].exit_code, results[0].output) == (137, "ready ready ready\n")


async def test_calls_go_on_when_the_session_is_killed_with_execs_that_wait_in_it(own: Ground, workdir: str) -> None:
    others = cli_processes()
    contract = sh("echo well", working_dir=workdir)
    waiting = await warmed(own, contract)
    for pid in set(cli_processes()) - set(others):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: waiting.key.session.is_lost)
    assert (await own.run(contract)).output == "well\n"
    assert pool(own).waiting == ()
    await warmed(own, contract)
    assert await is_warm(own, contract)
    await until(lambda: not processes_in(workdir))
    if own.state is not None:
        remove_containers(own.state)  # the double dies with its session, and cannot clean up as an engine does


async def test_a_session_that_is_replaced_takes_what_waits_in_it_along_and_fails_no_call(
    state: Path, workdir: str
) -> None:
    async with new_ground(state, warm={}) as own:
        own.engine.configure_connection(rotate_after_calls=4)
        contract, others = sh("echo well", working_dir=workdir), len(cli_processes())

        async def calls() -> None:
            for _ in range(6):
                assert (await own.run(contract)).output == "well\n"

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(calls)
        await until(lambda: len(cli_processes()) - others == 1)
        assert own.state is None or own.sessions() >= 2
        await until(lambda: len(processes_in(workdir)) == len(pool(own).waiting) > 0)
    assert processes_in(workdir) == []


async def test_one_that_is_being_started_when_its_session_is_replaced_does_not_keep_that_open(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract, others = sh("true"), cli_processes()  # of the engine that other tests share
    async with new_ground(state, warm={"max_per_tool": 0}) as own:
        await warmed(own, contract)
        key, asked = pool(own).waiting[0].key, 0
        query = key.session.query
        replaced = set(cli_processes()) - set(others)

        async def replacing(field: Field) -> Any:
            nonlocal asked
            asked += 1
            own.engine.configure_connection(rotate_after_calls=4)
            return await query(field)

        monkeypatch.setattr(key.session, "query", replacing)  # the last question before the exec begins: the socket's
        with pytest.raises(SessionLost), anyio.fail_after(CALL_LIMIT):
            await own.engine._warm_execs().start(key)
        assert asked == 1
        assert replaced
        await until(lambda: not replaced & set(cli_processes()))


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.5])
async def test_the_container_of_a_cancelled_call_ends_by_itself_where_the_engine_forgets_to_end_it(
    own: Ground, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    marker = uuid4().hex
    contract = sh(f"echo {marker}; sleep 1000")
    await own.run(sh("true"))

    async def forget(self: WaitingQuery, *, at_once: bool = False) -> None:
        """As the engine v0.21.8 does in 2 of 100 cancellations of a container that is just being started."""

    with monkeypatch.context() as patch:
        patch.setattr(WaitingQuery, "end", forget)
        with anyio.move_on_after(delay):
            await own.run(contract)
        assert processes(marker) == []
        await until(lambda: not own.state or running_containers(own.state) == [])


@pytest.mark.parametrize("delay", [0, 0.05, 0.2, 0.5])
async def test_an_engine_that_is_closed_while_one_is_started_leaves_none(
    ground: Ground, workdir: str, delay: float
) -> None:
    contract = sh("true", working_dir=workdir)
    with anyio.move_on_after(delay):
        await warmed(ground, contract)
    await ground.engine._warm_execs().close()
    assert pool(ground).waiting == ()
    await until(lambda: not processes_in(workdir))


async def test_a_server_that_is_killed_leaves_no_exec_that_waits(state: Path, workdir: str) -> None:
    command = [sys.executable, "-m", "tests.engines.dagger.victim", "real" if IS_REAL else str(state), workdir]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        with anyio.fail_after(CALL_LIMIT):
            assert await anyio.to_thread.run_sync(process.stdout.readline) == "waiting\n"
        assert processes_in(workdir)
        process.kill()
        await until(lambda: not processes_in(workdir))
    # Its session removes the containers a moment later, which a test after this one must not meet.
    await until(lambda: IS_REAL or not running_containers(state), within=CALL_LIMIT)


async def test_a_frozen_engine_is_not_blamed_on_the_tool(state: Path) -> None:
    timeout, grace = 1.0, 1.5
    async with new_ground(state, leaves_none=False, warm={"max_per_tool": 0}) as ground:
        ground.engine.configure_connection(grace=grace)
        contract = sh("echo begun; sleep 1000", timeout=timeout)
        await warmed(ground, contract)
        frozen: list[float] = []

        def freeze(*_: Any) -> None:
            if not frozen:
                frozen.append(anyio.current_time())
                for pid in cli_processes():
                    os.kill(pid, signal.SIGSTOP)

        try:
            with pytest.raises(ExecutionTimeout, match="engine gave no answer"):
                await ground.run(contract, ExecutionContext(on_output=freeze))
            took = anyio.current_time() - frozen[0]
        finally:
            for pid in cli_processes():
                os.kill(pid, signal.SIGCONT)
        assert metrics(ground).hits == 1
    assert took > grace
