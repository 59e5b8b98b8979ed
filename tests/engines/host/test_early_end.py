"""A call that ends as soon as its command is known to be gone, a moment before the program that ran it has left."""

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.specs import DaggerEngineSpec
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host import process as process_module
from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.engines.host.process import EarlyEnd, Launch, ReportPipe, run_process
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.engines.outcomes import NotBegun
from praxis_mcp.engines.output import Captured, StreamCollector
from praxis_mcp.plans.model import Capability
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.processes import Owner, SupervisedTree
from praxis_mcp.support.tasks import BackgroundTasks
from praxis_mcp.testing.bench import CALL_LIMIT
from tests.engines.host.sandbox_case import IMAGE, SandboxCase, control_groups, shared_store

pytestmark = pytest.mark.anyio

# Says that all is done, and leaves when its gate is closed: it holds both streams until then, as praxis-init does one.
PROGRAM = """
import os, sys
os.write(1, b"o" * 100_000)
os.write(2, b"e")
os.write(int(sys.argv[1]), b"done")
os.read(int(sys.argv[2]), 1)
"""


class Report(ReportPipe):
    said = b""

    def is_complete(self) -> bool:
        self.said += self.read()
        return self.said == b"done"


def children() -> set[int]:
    """This process's own, those among them that wait to be reaped."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.parametrize("leaves", ["by itself", "by a signal", "because its engine is closed"])
async def test_a_call_ends_with_the_report_and_the_program_and_what_it_had_are_gone_behind_it(
    leaves: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "PROCESS_KILL_TIMEOUT", 0.1 if leaves == "by a signal" else CALL_LIMIT)
    before = children()
    later, released = BackgroundTasks(), anyio.Event()

    async def release() -> None:
        assert children() == before
        released.set()

    closed, gate = os.pipe()
    out, err = StreamCollector("stdout", keep=200_000), StreamCollector("stderr", keep=100)
    with Report() as report, anyio.fail_after(CALL_LIMIT):
        early = EarlyEnd(report, later, release)
        words = (sys.executable, "-I", "-c", PROGRAM, str(report.write_end), str(closed))
        async with out, err:
            await run_process(
                Launch(words, {}, descriptors=(report.write_end, closed), own_session=False),
                lambda process: SupervisedTree(process, "PRAXIS_TEST=none"),
                timeout=CALL_LIMIT,
                stdout=out,
                stderr=err,
                early=early,
            )
        assert early.is_taken
        assert len(children() - before) == 1
        assert (out.captured.data, err.captured) == (b"o" * 100_000, Captured(b"e", total=1))
        os.close(closed)
        if leaves == "by itself":
            os.close(gate)
        await later.close(0.1 if leaves == "because its engine is closed" else CALL_LIMIT)
        await released.wait()
        if leaves != "by itself":
            os.close(gate)
    assert children() == before


async def test_a_call_that_is_cancelled_before_the_report_leaves_nothing(tmp_path: Path) -> None:
    before = children()
    later = BackgroundTasks()

    async def release() -> None:
        raise AssertionError("whoever cancels releases")

    started = anyio.Event()
    out, err = StreamCollector("stdout", keep=100, listener=lambda *_: started.set()), StreamCollector("stderr", keep=9)
    words = (sys.executable, "-I", "-c", "import os; os.write(1, b'hi'); os.read(0, 1)")
    with Report() as report, anyio.fail_after(CALL_LIMIT):
        early = EarlyEnd(report, later, release)

        async def run() -> None:
            async with out, err:
                await run_process(
                    Launch(words, {}, stdin=b"x" * 10_000_000, own_session=False),
                    lambda process: SupervisedTree(process, "PRAXIS_TEST=none"),
                    timeout=CALL_LIMIT,
                    stdout=out,
                    stderr=err,
                    early=early,
                )

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await started.wait()
            tasks.cancel_scope.cancel()
    assert not early.is_taken
    assert len(later) == 0
    assert children() == before


@pytest.mark.docker
@pytest.mark.sandbox
async def test_a_sandbox_that_holds_a_mount_has_left_when_its_call_ends_and_any_other_at_the_latest_with_its_engine(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    sandbox: Any = {"store": shared_store(), "launcher": "own"}
    settings = Settings.model_validate({"root": tmp_path, "engines": {"sandbox": sandbox}, "warm": {"enabled": False}})
    plain = ToolContract.create_dagger_tool("tool", IMAGE, ["/bin/true"])
    mounted = ToolContract.create_dagger_tool("tool", IMAGE, ["/bin/true"], mounts={"./data": "/data:rw"})
    with anyio.fail_after(CALL_LIMIT):
        async with SandboxExecutionEngine(settings) as engine:
            await engine.execute(mounted, {})
            before = children()
            for _ in range(10):
                assert (await engine.execute(mounted, {})).success
                assert children() == before
            for _ in range(10):
                assert (await engine.execute(plain, {})).success
    assert children() == before
    assert control_groups(f"praxis-mcp-{Owner.current()}-") == []


@pytest.mark.sandbox
@pytest.mark.skipif(Capability.MEMORY_LIMIT in find_cgroups().notes, reason="no control group limits memory here")
async def test_memory_that_ran_out_is_reported_though_the_sandbox_has_left_before_its_end_is_read() -> None:
    case = SandboxCase()
    code = "print('ready', flush=True); held = bytearray(200_000_000)"
    contract = case.python(code, memory_limit="64m")
    settings = case.settings()

    def until_it_has_left(*_: object) -> None:
        """Of the event loop's own thread, so that nothing of the end is seen meanwhile."""
        (program,) = children() - before
        os.waitid(os.P_PID, program, os.WEXITED | os.WNOWAIT)

    with anyio.fail_after(CALL_LIMIT):
        async with case.engine(settings) as engine:
            before = children()
            result = await engine.execute(contract, {}, ExecutionContext(on_output=until_it_has_left))
    assert (result.exit_code, result.out_of_memory) == (137, True)


@pytest.mark.sandbox
async def test_a_call_whose_sandbox_cannot_be_made_is_said_not_to_have_begun() -> None:
    case = SandboxCase()
    contract = case.sh("echo well")
    async with case.engine(case.settings()) as engine:
        assert isinstance(engine, SandboxExecutionEngine)
        assert isinstance(contract.engine_spec, DaggerEngineSpec)
        with anyio.fail_after(CALL_LIMIT):
            assert (await engine.execute(contract, {})).success
            root = (await engine.images.ensure(contract.engine_spec.image)).image.root
            for missing, why in ((root / "proc", "proc"), (root, "cannot be laid out")):
                missing.rename(missing.with_name("aside"))
                try:
                    with pytest.raises(NotBegun, match=why):
                        await engine.execute(contract, {})
                finally:
                    missing.with_name("aside").rename(missing)
            assert (await engine.execute(contract, {})).success
