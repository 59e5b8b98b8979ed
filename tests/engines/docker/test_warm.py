"""Docker containers that wait for their call: when there are any, what a call in one is like, and that none stays."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.engines.docker.warm import WarmContainer, WarmDocker
from praxis_mcp.errors import CommandNotFound, ExecutionError
from praxis_mcp.support.scratch import PREFIX, Scratch, sweep_scratch
from praxis_mcp.testing.bench import CALL_LIMIT, Bench, b64, with_parameter
from tests.engines.docker.bench import BUSYBOX, bench_on, tool
from tests.engines.docker.case import CASE, containers
from tests.kit.until import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.docker,
    pytest.mark.native,
]


def warm_docker(bench: Bench) -> WarmDocker:
    engine = bench.engine
    assert isinstance(engine, DockerSDKExecutionEngine)
    assert engine._warm is not None
    return engine._warm


async def warmed(
    bench: Bench, contract: ToolContract, context: ExecutionContext | None = None, **arguments: str
) -> WarmContainer:
    """See to it that a container waits for the contract's next call."""
    plan = bench.plan(contract, **arguments)
    await bench.engine.get_capabilities()
    warm = warm_docker(bench)
    key = warm.key(plan, context or ExecutionContext())
    assert key is not None
    await warm.pool.fill(key)
    return warm.pool.waiting[-1]


def hits(bench: Bench) -> int:
    metrics = bench.engine.warm()
    assert metrics is not None
    return metrics.hits


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """An engine with no waiting containers but those that a test asks for."""
    async with bench_on(warm={"max_per_tool": 0}) as bench:
        yield bench
    assert CASE.leftovers() == []


# --- when there is one ------------------------------------------------------------------------------------------------


async def test_the_second_call_of_a_tool_meets_a_container_that_waited_and_none_stays() -> None:
    async with bench_on(warm={"enabled": True}) as bench:
        contract = tool("cat /proc/1/cmdline")
        first = await bench.run(contract)
        await until(lambda: warm_docker(bench).pool.waiting)
        second = await bench.run(contract)
        assert second.output != first.output  # which tells the patience of its praxis-init
        assert (second.exit_code, second.image) == (0, first.image)
        metrics = bench.engine.warm()
        assert metrics is not None
        assert (metrics.hits, metrics.misses) == (1, 1)
        assert metrics.fill_seconds > 0
    assert CASE.leftovers() == []


async def test_no_two_calls_share_a_container(bench: Bench) -> None:
    contract = tool("hostname; cat /tmp/trace; echo left > /tmp/trace")
    names: set[str] = set()
    for _ in range(3):
        await warmed(bench, contract)
        result = await bench.run(contract)
        assert "left" not in result.output
        names.add(result.output)
    assert (len(names), hits(bench)) == (3, 3)


async def test_a_contract_or_the_settings_may_do_without() -> None:
    async with bench_on(warm={"enabled": True}) as bench:
        await bench.run(tool("true", warm=False))
        assert not warm_docker(bench).pool.metrics.misses
    async with bench_on(warm={"enabled": False}) as bench:
        await bench.run(tool("true"))
        assert bench.engine.warm() is None


async def test_a_burst_above_the_pool_takes_the_cold_path(bench: Bench) -> None:
    contract = tool("cat /proc/1/cmdline")
    for _ in range(2):
        await warmed(bench, contract)
    results: list[ExecutionResult] = []

    async def call() -> None:
        results.append(await bench.run(contract))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(call)
    # A praxis-init tells its patience: those that waited have another than those made for their call.
    assert sorted(Counter(result.output for result in results).values()) == [2, 2]


async def test_a_changed_contract_never_meets_a_container_of_the_old_one(bench: Bench) -> None:
    await warmed(bench, tool("true", memory_limit="64m"))
    await bench.run(tool("true", memory_limit="128m"))
    assert hits(bench) == 0


async def test_an_image_whose_name_means_another_now_is_not_met(bench: Bench) -> None:
    name = "praxis-mcp-test-retagged:1"
    subprocess.run(["docker", "tag", BUSYBOX, name], check=True)
    try:
        contract = tool("test -e /usr/local/bin/python3 && echo python || echo busybox", image=name)
        waiting = await warmed(bench, contract)
        assert (await bench.run(contract)).output == "busybox\n"
        await warmed(bench, contract)
        subprocess.run(["docker", "tag", "python:3.11-slim", name], check=True)
        assert (await bench.run(contract)).output == "python\n"
        assert warm_docker(bench).pool.waiting == ()
        assert waiting.image.id != (await warmed(bench, contract)).image.id
    finally:
        await bench.engine.cleanup()
        subprocess.run(["docker", "rmi", name], check=True, capture_output=True)


async def test_a_mounted_file_that_an_editor_replaced_is_the_new_one(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "main.sh"
    source.write_text("echo old")
    contract = tool(". /tool.sh", mounts={str(source): "/tool.sh"})
    await warmed(bench, contract)
    source.write_text("echo edited")  # in place: the same file
    assert (await bench.run(contract)).output == "edited\n"
    await warmed(bench, contract)
    (tmp_path / "new.sh").write_text("echo replaced")
    (tmp_path / "new.sh").rename(source)
    assert (await bench.run(contract)).output == "replaced\n"
    assert hits(bench) == 1


async def test_a_container_that_somebody_removed_is_done_without(bench: Bench) -> None:
    contract = tool("echo well")
    waiting = await warmed(bench, contract)
    subprocess.run(["docker", "rm", "-f", waiting.id], check=True, capture_output=True)
    assert (await bench.run(contract)).output == "well\n"
    assert hits(bench) == 0


# --- what a call is like ----------------------------------------------------------------------------------------------


async def test_a_file_is_read_only_for_the_tool_and_holds_this_calls_content(bench: Bench) -> None:
    contract = with_parameter(tool("cat /tmp/in.txt; echo >> /tmp/in.txt"), CASE.file_binding("/tmp/in.txt"))
    for content in (b"first, and longer", b"second"):
        await warmed(bench, contract, data=b64(b"x" * 100))
        result = await bench.run(contract, data=b64(content))
        assert (result.output.encode(), result.exit_code) == (content, 1)
    assert hits(bench) == 2


async def test_artifacts_come_into_the_runs_own_directory(bench: Bench, tmp_path: Path) -> None:
    contract = tool("echo made > $PRAXIS_OUTPUT_DIR/a.txt; mkdir $PRAXIS_OUTPUT_DIR/b", artifacts=["/out/*.txt"])
    context = ExecutionContext(directory=tmp_path)
    await warmed(bench, contract, context)
    result = await bench.run(contract, context)
    (artifact,) = result.artifacts
    assert artifact.file == tmp_path / "artifacts" / "a.txt"
    assert artifact.file.read_text() == "made\n"
    assert hits(bench) == 1


async def test_a_command_that_is_not_there_is_named(bench: Bench) -> None:
    contract = CASE.contract(["no-such-command"], image=BUSYBOX)
    await warmed(bench, contract)
    with pytest.raises(CommandNotFound, match="no-such-command"):
        await bench.run(contract)
    assert hits(bench) == 1


async def test_memory_that_runs_out_is_reported_whichever_process_the_kernel_kills(bench: Bench) -> None:
    contract = CASE.python("x = bytearray(512 << 20)", memory_limit="64m")
    await warmed(bench, contract)
    result = await bench.run(contract)
    assert (result.out_of_memory, result.success) == (True, False)
    assert hits(bench) == 1


async def test_a_container_that_is_killed_during_its_call_fails_it_with_a_reason(bench: Bench) -> None:
    contract = tool("echo ready; exec sleep 1000")
    waiting = await warmed(bench, contract)
    heard = anyio.Event()
    failures: list[ExecutionError] = []

    async def call() -> None:
        with pytest.raises(ExecutionError, match="its container ended before the call did") as failure:
            await bench.run(contract, ExecutionContext(on_output=lambda *_: heard.set()))
        failures.append(failure.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
        await anyio.run_process(["docker", "kill", waiting.id])
    assert len(failures) == 1


async def test_a_waiting_container_is_hardened_as_any_other(bench: Bench) -> None:
    contract = tool("grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status; echo x > /usr/x || echo refused")
    await warmed(bench, contract)
    output = (await bench.run(contract)).output
    assert output.split() == ["CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2", "refused"]


async def test_an_environment_of_a_call_is_seen_by_nobody_outside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARM_TOKEN", "s3cr3t-value")
    # More than a secret's length: the end might be the beginning of one, and is held back.
    contract = tool("echo ready ready ready; exec sleep 1000", env={"TOKEN": {"secret": "WARM_TOKEN"}})
    waiting = await warmed(bench, contract)
    heard = anyio.Event()
    told = b""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, contract, ExecutionContext(on_output=lambda *_: heard.set()))
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
        told = subprocess.run(["docker", "inspect", waiting.id], check=True, capture_output=True).stdout
        tasks.cancel_scope.cancel()
    assert b"s3cr3t" not in told
    assert json.loads(told)[0]["Id"] == waiting.id


# --- none stays -------------------------------------------------------------------------------------------------------


def gone(container: str) -> bool:
    return subprocess.run(["docker", "inspect", container], capture_output=True, check=False).returncode != 0


async def test_a_waiting_container_goes_with_a_server_that_is_killed() -> None:
    command = [sys.executable, "-m", "tests.engines.docker.victim", "600", "warm"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        container = process.stdout.readline().strip()
        process.kill()
        await until(lambda: gone(container))
        owned = containers(f"praxis-mcp.pid={process.pid}")
        subprocess.run(["docker", "rm", "-f", *[line.split()[0] for line in owned]], capture_output=True, check=False)


async def test_files_of_a_killed_server_are_swept_and_those_of_a_living_one_are_not() -> None:
    source = "from praxis_mcp.support.scratch import Scratch; s = Scratch.make(); print(s.path, flush=True); input()"
    mine = Scratch.make()
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().decode().strip())
        assert theirs.name.startswith(PREFIX)
        sweep_scratch()
        assert theirs.exists()
        process.kill()
    assert theirs.exists()
    assert sweep_scratch() >= 1
    assert not theirs.exists()
    assert mine.path.exists()
    mine.remove()
    assert not mine.path.exists()


async def test_a_cancelled_call_has_left_nothing_when_it_returns(bench: Bench) -> None:
    contract = tool("echo ready; exec sleep 1000")
    waiting = await warmed(bench, contract)
    heard = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, contract, ExecutionContext(on_output=lambda *_: heard.set()))
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
        tasks.cancel_scope.cancel()
    assert gone(waiting.id)


async def test_waiting_containers_are_removed_when_no_call_comes() -> None:
    async with bench_on(warm={"idle_seconds": 1}) as bench:
        waiting = await warmed(bench, tool("true"))
        await until(lambda: gone(waiting.id))
