"""Sandboxes that wait for their call: when there are any, what a call in one is like, and that none stays."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.specs import DaggerEngineSpec
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionContext, ExecutionResult
from praxis_mcp.engines.host import message as message_module
from praxis_mcp.engines.host import waiting as waiting_module
from praxis_mcp.engines.host.launcher import MARK
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.engines.host.waiting import WaitingSandbox
from praxis_mcp.engines.host.warm import WarmSandboxes
from praxis_mcp.errors import CommandNotFound, ExecutionError
from praxis_mcp.images.store import ImageStore
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.processes import OWNER_VARIABLE
from praxis_mcp.testing.bench import CALL_LIMIT, Bench, EngineCase, b64, past_its_deadline, stdin_of, with_parameter
from tests.engines.host.local_case import LocalCase
from tests.engines.host.sandbox_case import SandboxCase, control_groups, shared_store
from tests.engines.host.waiting import WHEN_ASKED
from tests.images.tars import directory, image, layer
from tests.kit.unkillable import children_of, held
from tests.kit.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]


class _Sandbox(SandboxCase):
    warm = WHEN_ASKED


class _Local(LocalCase):
    sandbox = "own"
    warm = WHEN_ASKED


CASES = [pytest.param(_Sandbox(), id="sandbox", marks=pytest.mark.docker), pytest.param(_Local(), id="local")]


@contextlib.asynccontextmanager
async def bench_on(case: EngineCase, root: Path, **values: Any) -> AsyncIterator[Bench]:
    settings = case.settings(root=root, **values)
    async with case.engine(settings) as engine:
        yield Bench(case, engine, settings)
    assert control_groups(f"praxis-mcp-{os.getpid()}-") == []
    assert inits_of(os.getpid()) == []


def inits_of(pid: int) -> list[int]:
    """The praxis-inits of sandboxes that a server has started: those outside, by their environment."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes()
            if f"{MARK}=".encode() in environment and f"{OWNER_VARIABLE}={pid}-".encode() in environment:
                found.append(int(folder.name))
    return found


@pytest.fixture(params=CASES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Bench]:
    """An engine with no waiting sandboxes but those that a test asks for."""
    (tmp_path / "root").mkdir()
    async with bench_on(request.param, tmp_path / "root") as bench:
        yield bench


@pytest.fixture
async def local(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Bench]:
    """The same, on the host."""
    (tmp_path / "root").mkdir()
    async with bench_on(_Local(), tmp_path / "root") as bench:
        yield bench


async def warm_of(bench: Bench) -> WarmSandboxes:
    engine: Any = bench.engine
    if engine._warm is None:
        if isinstance(engine, SandboxExecutionEngine):
            engine._warm = engine._open_warm(await engine._found())
        else:
            engine._warm = engine._open_warm(await engine._sandbox(), await engine._groups())
    assert isinstance(engine._warm, WarmSandboxes)
    return engine._warm


async def warmed(
    bench: Bench,
    contract: ToolContract,
    context: ExecutionContext | None = None,
    plan: Plan | None = None,
    **arguments: str,
) -> WaitingSandbox:
    """See to it that a sandbox waits for the contract's next call."""
    plan, engine, warm = plan or bench.plan(contract, **arguments), bench.engine, await warm_of(bench)
    parts = [plan.call.argv[0]]
    if isinstance(engine, SandboxExecutionEngine):
        parts = [(await engine.images.ensure(str(plan.blueprint.image))).image.id]
    key = warm.key(plan, context or ExecutionContext(), *parts)
    assert key is not None
    with anyio.fail_after(CALL_LIMIT):
        await warm.pool.fill(key)
    return warm.pool.waiting[-1]


def hits(bench: Bench) -> int:
    metrics = bench.engine.warm()
    assert metrics is not None
    return metrics.hits


# --- when there is one ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine_case", CASES)
async def test_the_second_call_of_a_tool_meets_a_sandbox_that_waited_and_none_stays(
    engine_case: EngineCase, tmp_path: Path
) -> None:
    async with bench_on(engine_case, tmp_path, warm={"enabled": True}) as bench:
        contract = bench.case.sh("echo well")
        assert (await bench.run(contract)).output == "well\n"
        await until(lambda: (metrics := bench.engine.warm()) and metrics.waiting)
        assert (await bench.run(contract)).output == "well\n"
        metrics = bench.engine.warm()
        assert metrics is not None
        assert (metrics.hits, metrics.misses, metrics.failed) == (1, 1, 0)
        await until(lambda: (metrics := bench.engine.warm()) and metrics.waiting)


async def test_no_two_calls_share_a_sandbox(bench: Bench) -> None:
    contract = bench.case.sh("cat /tmp/trace; echo left > /tmp/trace; uname -n")
    names: set[str] = set()
    for _ in range(3):
        await warmed(bench, contract)
        output = (await bench.run(contract)).output
        assert "left" not in output
        names.add(output)
    assert hits(bench) == 3
    assert len(names) == (3 if isinstance(bench.engine, SandboxExecutionEngine) else 1)


@pytest.mark.parametrize("engine_case", CASES)
async def test_a_contract_or_the_settings_may_do_without(engine_case: EngineCase, tmp_path: Path) -> None:
    async with bench_on(engine_case, tmp_path, warm={"enabled": True}) as bench:
        await bench.run(bench.case.sh("true", warm=False))
        assert (await warm_of(bench)).pool.metrics.misses == 0
    async with bench_on(engine_case, tmp_path, warm={"enabled": False}) as bench:
        await bench.run(bench.case.sh("true"))
        assert bench.engine.warm() is None


async def test_a_call_with_a_file_begins_with_its_own_sandbox_and_meets_none(bench: Bench) -> None:
    binding = Binding(kind=BindKind.FILE, target="/praxis-in/data")
    contract = with_parameter(bench.case.sh("cat /praxis-in/data"), binding)
    assert (await bench.run(contract, data=b64(b"content"))).output == "content"
    assert (await warm_of(bench)).pool.metrics.misses == 0


async def test_words_variables_and_standard_input_of_its_call_reach_a_tool(bench: Bench) -> None:
    contract = stdin_of(bench.case.sh('cat; echo "$1 $X $#"', "a b", env={"X": "y\nz"}))
    await warmed(bench, contract, data=b64(b"other"))
    assert (await bench.run(contract, data=b64(b"in\0put "))).stdout.data == b"in\0put a b y\nz 1\n"
    assert hits(bench) == 1


async def test_none_stays_where_the_event_loop_ends_right_behind_the_call(bench: Bench) -> None:
    """Which cancels all tasks."""
    contract = bench.case.sh("echo well")
    await warmed(bench, contract)
    before = asyncio.all_tasks()
    assert (await bench.run(contract)).output == "well\n"
    assert hits(bench) == 1
    await anyio.lowlevel.checkpoint()  # what removes it has begun
    with anyio.fail_after(CALL_LIMIT):
        for task in (left := asyncio.all_tasks() - before):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    assert inits_of(os.getpid()) == []


# --- what has changed since it was made -------------------------------------------------------------------------------


async def test_a_mounted_directory_that_was_replaced_is_the_new_one(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    (source / "file").write_text("old")
    contract = bench.case.sh("cat /praxis/file", mounts={str(source): "/praxis"})
    await warmed(bench, contract)
    (source / "file").write_text("changed")
    assert (await bench.run(contract)).output == "changed"
    await warmed(bench, contract)
    source.rename(tmp_path / "before")
    source.mkdir()
    (source / "file").write_text("new")
    assert (await bench.run(contract)).output == "new"
    assert (await warm_of(bench)).pool.waiting == ()


async def test_a_mount_whose_place_was_replaced_covers_the_new_one(bench: Bench, tmp_path: Path) -> None:
    """The kernel drops a mount with the file that it lies on."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.write_text("inner")
    (outer / "place").write_text("what is covered")
    contract = bench.case.sh(
        "cat /praxis/place", mounts={str(outer): "/praxis", str(inner): "/praxis/place"}
    )  # fmt: skip
    await warmed(bench, contract)
    (tmp_path / "new").write_text("what is to be covered")
    (tmp_path / "new").rename(outer / "place")
    assert (await bench.run(contract)).output == "inner"
    await warmed(bench, contract)
    (outer / "place").rename(tmp_path / "aside")  # the same file, and the same number: its mount has gone with it
    (tmp_path / "aside").rename(outer / "place")
    os.link(outer / "place", tmp_path / "link")
    (outer / "place").unlink()
    (tmp_path / "link").rename(outer / "place")
    assert (await bench.run(contract)).output == "inner"


async def test_what_is_hidden_stays_hidden_when_it_is_replaced(
    local: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    (home / "private").write_text("secret")
    monkeypatch.setenv("HOME", str(home))
    contract = local.case.sh('cat "$1"', str(home / "private"))
    await warmed(local, contract)
    home.rename(tmp_path / "aside")
    (tmp_path / "aside").rename(home)
    (home / "other").write_text("secret")
    for name in ("private", "other"):
        found = await local.run(local.case.sh('cat "$1"', str(home / name)))
        assert (found.output, found.success) == ("", False)


async def test_a_tool_begins_in_the_working_directory_that_is_there_now(local: Bench, tmp_path: Path) -> None:
    place = tmp_path / "root" / "work"
    place.mkdir()
    contract = local.case.sh("ls", working_dir=str(place))
    await warmed(local, contract)
    (place / "first").touch()
    assert (await local.run(contract)).output == "first\n"
    await warmed(local, contract)
    (place / "first").unlink()
    place.rmdir()
    place.mkdir()
    (place / "second").touch()
    assert (await local.run(contract)).output == "second\n"


async def test_a_working_directory_behind_a_link_is_the_one_that_the_link_leads_to_now(
    bench: Bench, tmp_path: Path
) -> None:
    place = tmp_path / "root" / "shown"
    for name in ("first", "second"):
        (place / name).mkdir(parents=True)
        (place / name / name).touch()
    (place / "current").symlink_to("first")
    is_host = not isinstance(bench.engine, SandboxExecutionEngine)
    directory = str(place / "current") if is_host else "/praxis/current"
    contract = bench.case.sh("ls", mounts={} if is_host else {str(place): "/praxis"}, working_dir=directory)
    await warmed(bench, contract)
    assert (await bench.run(contract)).output == "first\n"
    assert hits(bench) == 1
    await warmed(bench, contract)
    (place / "new").symlink_to("second")
    (place / "new").rename(place / "current")
    assert (await bench.run(contract)).output == "second\n"


@pytest.fixture
def place_to_mount(tmp_path: Path) -> Iterator[Path]:
    """A directory below which a test may mount."""
    place = tmp_path / "shown" / "below"
    place.mkdir(parents=True)
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    yield place
    subprocess.run(["umount", "--recursive", place], check=False, capture_output=True)


async def test_what_the_host_has_mounted_or_unmounted_meanwhile_is_seen(bench: Bench, place_to_mount: Path) -> None:
    contract = bench.case.sh("ls /praxis/below", mounts={str(place_to_mount.parent): "/praxis"})
    waiting = await warmed(bench, contract)
    assert waiting.is_fresh()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(place_to_mount)]
    if (await anyio.run_process(mount, check=False)).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    (place_to_mount / "file").touch()
    assert not waiting.is_fresh()
    assert (await bench.run(contract)).output == "file\n"
    waiting = await warmed(bench, contract)
    await anyio.run_process(["umount", str(place_to_mount)])
    assert not waiting.is_fresh()
    assert (await bench.run(contract)).output == ""
    assert hits(bench) == 0


async def test_what_has_become_read_only_on_the_host_is_so_for_the_next_call(
    bench: Bench, place_to_mount: Path
) -> None:
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(place_to_mount)]
    if (await anyio.run_process(mount, check=False)).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    (place_to_mount / "data").mkdir()
    contract = bench.case.sh("touch /praxis/file", mounts={str(place_to_mount / "data"): "/praxis:rw"})
    await warmed(bench, contract)
    assert (await bench.run(contract)).success
    await warmed(bench, contract)
    await anyio.run_process(["mount", "-o", "remount,bind,ro", str(place_to_mount)])
    assert not (await bench.run(contract)).success
    assert hits(bench) == 1


async def test_a_sandbox_stays_when_something_is_mounted_where_it_shows_nothing(
    bench: Bench, place_to_mount: Path
) -> None:
    (place_to_mount.parent.parent / "mounted").mkdir()
    contract = bench.case.sh("ls /praxis", mounts={str(place_to_mount.parent.parent / "mounted"): "/praxis"})
    waiting = await warmed(bench, contract)
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(place_to_mount)]
    if (await anyio.run_process(mount, check=False)).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    assert waiting.is_fresh()


@pytest.mark.docker
async def test_an_image_whose_name_means_another_now_or_that_was_removed_is_not_met(tmp_path: Path) -> None:
    store = ImageStore(shared_store())
    async with bench_on(_Sandbox(), tmp_path) as bench:
        assert isinstance(bench.engine, SandboxExecutionEngine)
        with anyio.fail_after(CALL_LIMIT):
            await bench.engine.images.ensure("busybox:1.36")
        found = store.find("busybox:1.36")
        assert found is not None
        busybox = (found.image.root / "bin/busybox").read_bytes()

        def install(name: str) -> None:
            from tests.images.tars import file

            made = image(layer(file("bin/busybox", busybox, 0o755), directory(name)), compress=False)
            store.install(made.content(), ["test/waiting:1"])

        install("one")
        contract = bench.case.contract(["/bin/busybox", "ls", "/"], image="test/waiting:1")
        waiting = await warmed(bench, contract)
        assert "one" in (await bench.run(contract)).output.split()
        waiting = await warmed(bench, contract)
        install("two")
        assert "two" in (await bench.run(contract)).output.split()
        assert (await warm_of(bench)).pool.waiting == ()
        waiting = await warmed(bench, contract)
        await anyio.to_thread.run_sync(store.remove, "test/waiting:1")
        assert not waiting.is_fresh()


async def test_a_sandbox_that_somebody_killed_is_done_without(bench: Bench) -> None:
    contract = bench.case.sh("echo well")
    waiting = await warmed(bench, contract)
    waiting._process.kill()
    waiting._process.wait()
    assert (await bench.run(contract)).output == "well\n"
    assert hits(bench) == 0


# --- what a call is like ----------------------------------------------------------------------------------------------


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time to end for tools on a machine that is busy with other things."""
    monkeypatch.setattr(message_module, "TERM_GRACE", 30.0)


@pytest.mark.usefixtures("patience")
async def test_a_tool_at_its_deadline_may_say_its_last_words(bench: Bench) -> None:
    source = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("last words", flush=True), sys.exit(5)))
print("ready", flush=True)
signal.pause()
"""

    async def run(seconds: float) -> ExecutionResult:
        contract = bench.case.python(source, timeout=seconds)
        await warmed(bench, contract)
        before = hits(bench)
        result = await bench.run(contract)
        assert hits(bench) == before + 1
        return result

    result = await past_its_deadline(run, "ready\n")
    assert (result.timed_out, result.exit_code, result.output) == (True, 5, "ready\nlast words\n")


async def test_a_deadline_that_passes_before_the_tool_has_begun_is_that_tools_end(bench: Bench) -> None:
    """praxis-init is asked to end, and may not have taken the whole call yet."""
    for seconds in (0.0001, 0.0003, 0.0005, 0.001, 0.002) * 5:
        contract = bench.case.sh("sleep 1000", timeout=seconds)
        await warmed(bench, contract)
        assert (await bench.run(contract)).timed_out


@pytest.mark.usefixtures("patience")
async def test_a_tool_whose_call_is_cancelled_may_finish_what_it_does(bench: Bench, tmp_path: Path) -> None:
    source = """
import os, pathlib, signal, sys
def end(*_):
    left = b"x" * 1_000_000
    while left:
        left = left[os.write(1, left):]
    pathlib.Path("/praxis/done").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
signal.pause()
"""
    (tmp_path / "data").mkdir()
    contract = bench.case.python(source, mounts={str(tmp_path / "data"): "/praxis:rw"})
    await warmed(bench, contract)
    heard = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, contract, ExecutionContext(on_output=lambda *_: heard.set()))
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
        tasks.cancel_scope.cancel()
    assert hits(bench) == 1
    assert (tmp_path / "data" / "done").exists()


async def test_a_command_that_is_not_there_is_named(bench: Bench) -> None:
    contract = bench.case.contract(["no-such-command"])
    await warmed(bench, contract)
    with pytest.raises(CommandNotFound, match="no-such-command"):
        await bench.run(contract)
    assert hits(bench) == 1


async def test_words_that_the_kernel_refuses_are_refused_by_name(bench: Bench) -> None:
    contract = stdin_of(bench.case.sh("true", "x" * 200_000))
    await warmed(bench, contract, data=b64(b""))
    with pytest.raises(ExecutionError, match="too large for one command"):
        await bench.run(contract, data=b64(b""))


async def test_secrets_and_arguments_of_a_call_are_seen_by_nobody_outside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAITING_TOKEN", "s3cr3t-value")
    contract = bench.case.sh(
        "echo ready ready ready; exec sleep 1000", "argument-of-a-call", env={"TOKEN": {"secret": "WAITING_TOKEN"}}
    )
    waiting = await warmed(bench, contract)
    heard = anyio.Event()
    seen = b""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, contract, ExecutionContext(on_output=lambda *_: heard.set()))
        with anyio.fail_after(CALL_LIMIT):
            await heard.wait()
        outside = Path(f"/proc/{waiting._process.pid}")
        seen = (outside / "cmdline").read_bytes() + (outside / "environ").read_bytes()
        (inside,) = (outside / f"task/{outside.name}/children").read_text().split()
        seen += Path(f"/proc/{inside}/cmdline").read_bytes()
        tasks.cancel_scope.cancel()
    assert b"praxis-init" in seen
    assert b"s3cr3t" not in seen
    assert b"argument-of-a-call" not in seen


async def test_a_sandbox_that_cannot_be_made_leaves_nothing_and_its_tool_is_called_all_the_same(
    bench: Bench, tmp_path: Path
) -> None:
    source = tmp_path / "data"
    source.mkdir()
    contract = bench.case.sh("ls /praxis", mounts={str(source): "/praxis"})
    plan = bench.plan(contract)
    source.rename(tmp_path / "aside")
    with pytest.raises(ExecutionError, match=str(source)):
        await warmed(bench, contract, plan=plan)
    (tmp_path / "aside").rename(source)
    (source / "file").touch()
    assert (await bench.run(contract)).output == "file\n"


async def test_a_tool_that_leaves_what_cannot_be_killed_has_not_ended(
    local: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "PROCESS_KILL_TIMEOUT", 0.1)
    contract = local.case.sh("sleep 1000 & echo ready; wait")
    waiting = await warmed(local, contract)
    outside = waiting._process
    heard = anyio.Event()
    error: ExecutionError | None = None

    async def call() -> None:
        nonlocal error
        with pytest.raises(ExecutionError, match=f"process {outside.pid} cannot be killed") as caught:
            await local.run(contract, ExecutionContext(on_output=lambda *_: heard.set()))
        error = caught.value

    with anyio.fail_after(CALL_LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await heard.wait()
            (inside,) = children_of(outside.pid)
            (command,) = children_of(inside)
            (left,) = children_of(command)
            with held(left):
                os.kill(command, signal.SIGKILL)
                await until(lambda: error)
    await until(lambda: outside.poll() is not None)


# --- none stays -------------------------------------------------------------------------------------------------------


SERVER = """
import sys
import anyio
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.settings.model import Settings

kind, store, image = sys.argv[1:]
settings = Settings.model_validate({"engines": {"sandbox": {"store": store, "launcher": "own"}}})
if kind == "local":
    contract, engine = ToolContract.create_local_tool("tool", ["true"]), LocalExecutionEngine(settings)
else:
    contract = ToolContract.create_dagger_tool("tool", image, ["true"], memory_limit="64m")
    engine = SandboxExecutionEngine(settings)

async def main():
    async with engine:
        await engine.execute(contract, {})
        while not engine.warm().waiting:
            await anyio.sleep(0.01)
        print("waiting", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def _only_child_of(pid: int) -> int:
    """Zero where it has none, or more."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if len(children) == 1 else 0


@pytest.mark.parametrize("kind", [pytest.param("sandbox", marks=pytest.mark.docker), "local"])
async def test_a_waiting_sandbox_goes_with_a_server_that_is_killed(kind: str) -> None:
    spec = _Sandbox().contract(["true"]).engine_spec
    assert isinstance(spec, DaggerEngineSpec)
    words = [sys.executable, "-c", SERVER, kind, str(shared_store()), spec.image]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            with anyio.fail_after(CALL_LIMIT):
                assert await anyio.to_thread.run_sync(server.stdout.readline) == "waiting\n"
            # The first call's own leaves behind its answer.
            outside = await until(lambda: _only_child_of(server.pid))
            inside = await until(lambda: _only_child_of(outside))
        finally:
            server.kill()
        server.wait()
        await until(lambda: not Path(f"/proc/{outside}").exists() and not Path(f"/proc/{inside}").exists())
    engine = SandboxExecutionEngine if kind == "sandbox" else LocalExecutionEngine
    async with engine(Settings()) as other:
        await other.reap()
    assert control_groups(f"praxis-mcp-{server.pid}-") == []


@pytest.mark.parametrize("engine_case", CASES)
async def test_waiting_sandboxes_are_removed_when_no_call_comes(engine_case: EngineCase, tmp_path: Path) -> None:
    async with bench_on(engine_case, tmp_path, warm={"idle_seconds": 1, **WHEN_ASKED}) as bench:
        waiting = await warmed(bench, bench.case.sh("true"))
        await until(lambda: waiting._process.returncode is not None)


async def test_waiting_sandboxes_go_with_the_contract_that_they_were_made_for(bench: Bench) -> None:
    waiting = await warmed(bench, bench.case.sh("true"))
    bench.engine.retire(["another"])
    assert (await warm_of(bench)).pool.waiting == (waiting,)
    bench.engine.retire(["conformance"])
    assert (await warm_of(bench)).pool.waiting == ()
    await until(lambda: waiting._process.returncode is not None)
