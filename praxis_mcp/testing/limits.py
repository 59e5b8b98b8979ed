"""What every engine keeps a tool from: time, memory, processes, network, outliving its call, and what it refuses."""

import json
import socket
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.errors import ContractError
from praxis_mcp.plans.model import Capability
from praxis_mcp.testing.bench import CALL_LIMIT, FOREVER, Bench, past_its_deadline, processes

pytestmark = pytest.mark.anyio

SHOW_INTERFACES = "import json, socket; print(json.dumps([name for _, name in socket.if_nameindex()]))"


async def test_a_timeout_kills_the_whole_tree_and_keeps_what_was_written(bench: Bench) -> None:
    marker = uuid4().hex
    child = "import signal, sys; signal.signal(15, signal.SIG_IGN); print('child', flush=True); signal.pause()"
    source = f"""
import os, subprocess, sys
for detached in (False, True):
    words = [sys.executable, "-c", {child!r}, sys.argv[1]]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=detached)
    print(child.stdout.readline().decode().strip(), flush=True)
{FOREVER}
"""
    result = await past_its_deadline(
        lambda seconds: bench.run(bench.case.python(source, marker, timeout=seconds)), "child\nchild\n"
    )
    assert (result.timed_out, result.success, result.output) == (True, False, "child\nchild\n")
    assert processes(marker) == []


async def test_a_cancelled_call_leaves_nothing_running(bench: Bench) -> None:
    marker = uuid4().hex
    source = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {FOREVER!r}, sys.argv[1]], start_new_session=True)
print("ready", flush=True)
{FOREVER}
"""
    contract = bench.case.python(source, marker)
    received = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, contract, ExecutionContext(on_output=lambda *_: received.set()))
        with anyio.fail_after(CALL_LIMIT):
            await received.wait()
        assert processes(marker) != []
        tasks.cancel_scope.cancel()
    assert processes(marker) == []
    assert bench.case.leftovers() == []


@pytest.mark.parametrize("delay", [0, 0.01, 0.1, 0.2])
async def test_a_call_cancelled_while_it_starts_leaves_nothing_running(bench: Bench, delay: float) -> None:
    marker = uuid4().hex
    contract = bench.case.python(FOREVER, marker)
    await bench.engine.get_capabilities()
    with anyio.move_on_after(delay):
        await bench.run(contract)
    assert processes(marker) == []
    assert bench.case.leftovers() == []


async def test_nothing_outlives_a_tool_that_ends(bench: Bench) -> None:
    marker = uuid4().hex
    source = f"""
import subprocess, sys
null = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
subprocess.Popen([sys.executable, "-c", {FOREVER!r}, sys.argv[1]], start_new_session=True, **null)
"""
    result = await bench.run(bench.case.python(source, marker))
    assert result.exit_code == 0
    assert processes(marker) == []


async def test_a_tool_above_its_memory_limit_is_killed_and_called_so(bench: Bench) -> None:
    contract = bench.case.python(
        "print('begun', flush=True); x = bytearray(512 << 20); print('done')", memory_limit="64m"
    )
    if await bench.refuses(contract):
        return
    result = await bench.run(contract)
    assert (result.out_of_memory, result.success, result.timed_out) == (True, False, False)
    assert result.output == "begun\n"


async def test_a_tool_within_its_memory_limit_is_left_alone(bench: Bench) -> None:
    contract = bench.case.python("x = bytearray(16 << 20); raise SystemExit(9)", memory_limit="128m")
    if await bench.refuses(contract):
        return
    result = await bench.run(contract)
    assert (result.exit_code, result.out_of_memory) == (9, False)


async def test_a_tool_cannot_have_more_processes_than_its_limit(bench: Bench) -> None:
    source = """
import os, signal
children = []
try:
    while len(children) < 100:
        child = os.fork()
        if not child:
            signal.pause()
        children.append(child)
except OSError:
    pass
print(1 + len(children))
for child in children:
    os.kill(child, 9)
"""
    contract = bench.case.python(source, pids_limit=10)
    if await bench.refuses(contract):
        return
    assert (await bench.run(contract)).output == "10\n"


async def test_a_tool_gets_no_more_cpu_than_its_limit(bench: Bench) -> None:
    source = """
import time
begun, spent = time.monotonic(), time.process_time()
while time.process_time() - spent < 0.4:
    pass
print(time.monotonic() - begun)
"""
    contract = bench.case.python(source, cpu_limit=0.25)
    if await bench.refuses(contract):
        return
    assert float((await bench.run(contract)).output) > 0.4 / 0.25 * 0.6


async def test_network_none_leaves_a_tool_alone_with_itself(bench: Bench) -> None:
    source = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
    print("connected")
except TimeoutError:
    print("timed out")  # a packet left
except OSError:
    print("unreachable")
"""
    contract = bench.case.python(source, network="none")
    if await bench.refuses(contract):
        return
    assert (await bench.run(contract)).output == "unreachable\n"


async def test_network_bridge_gives_a_tool_an_interface(bench: Bench) -> None:
    contract = bench.case.python(SHOW_INTERFACES, network="bridge")
    if await bench.refuses(contract):
        return
    if not {name for _, name in socket.if_nameindex()} - {"lo"}:
        pytest.skip("this machine has no interface but its loopback, and some engines' bridge is its network")
    assert set(json.loads((await bench.run(contract)).output)) - {"lo"}


async def test_twenty_calls_at_once_each_get_their_own(bench: Bench) -> None:
    results: dict[int, str] = {}

    async def call(number: int) -> None:
        results[number] = (await bench.run(bench.case.sh('echo "$1"', str(number)))).output

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(call, number)
    assert results == {number: f"{number}\n" for number in range(20)}


async def test_a_contract_is_validated_without_a_call_and_each_reason_against_it_is_named(
    bench: Bench, tmp_path: Path
) -> None:
    assert await bench.engine.validate_contract(bench.case.sh("exit 0"))
    missing = [tmp_path / name for name in ("missing-a", "missing-b")]
    contract = bench.case.sh("exit 0", mounts={str(place): f"/mnt/{place.name}" for place in missing})
    with pytest.raises(ContractError) as finding:
        await bench.engine.validate_contract(contract)
    assert all(str(place) in str(finding.value) for place in missing)
    lacking = "cannot enforce " + Capability.MOUNTS.value
    assert (lacking in str(finding.value)) is (Capability.MOUNTS in bench.case.lacks)
    assert all(item.remedy for item in finding.value.diagnostics)
    assert not any(place.exists() for place in missing)
