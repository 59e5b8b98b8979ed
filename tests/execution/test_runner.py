"""One call's life, over real commands on the host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.contracts.catalog.catalog import Catalog
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.phases import PhaseClock
from praxis_mcp.errors import ArgumentError, ExecutionError, LimitUnsupported, UnknownToolError
from praxis_mcp.execution.records.record import RunRecord
from praxis_mcp.execution.records.row import NOTHING, About
from praxis_mcp.execution.records.runs import RunRecords
from praxis_mcp.execution.result_checks import run_example
from praxis_mcp.execution.runner import ToolRunner
from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.model import Settings
from tests.execution.engines import AnsweringEngine, Engines
from tests.kit.contracts import write_contract
from tests.kit.until import until

pytestmark = pytest.mark.anyio


write = partial(write_contract, engine="local", timeout=20)
RANDOM = "od -An -N8 -tx8 /dev/urandom"


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script, "sh"]


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    return tmp_path / "tools"


@pytest.fixture
async def toolbox(tools: Path) -> AsyncIterator[Toolbox]:
    write(tools, "first", command=["/bin/true"])
    async with open_toolbox(Settings(tools=(tools,), root=tools.parent)) as toolbox:
        yield toolbox


async def test_a_toolbox_is_open_once_its_catalog_is_there_and_earlier_where_that_is_wanted(tools: Path) -> None:
    write(tools, "first", command=["/bin/true"])
    settings = Settings(tools=(tools,), root=tools.parent)
    async with open_toolbox(settings) as toolbox:
        assert toolbox.is_loaded
        assert [entry.name for entry in toolbox.catalog.entries()] == ["first"]
    async with open_toolbox(settings, scan_in_background=True) as toolbox:
        assert not toolbox.is_loaded
        with anyio.fail_after(30):
            await toolbox.loaded()
        assert [entry.name for entry in toolbox.catalog.entries()] == ["first"]


async def call(toolbox: Toolbox, name: str, **arguments: Any) -> str:
    with anyio.fail_after(30):
        await toolbox.catalog.load()
        result = await toolbox.runner.call(name, arguments)
    assert result.success, result.stderr.text
    return result.output


async def test_what_is_wrong_with_a_call_is_reported_before_anything_runs(toolbox: Toolbox, tools: Path) -> None:
    write(tools, "needs", command=["/bin/echo"], parameters={"text": "string"})
    await toolbox.catalog.load()
    with pytest.raises(UnknownToolError):
        await toolbox.runner.call("frist", {})
    with pytest.raises(ArgumentError):
        await toolbox.runner.call("needs", {})
    assert toolbox.records.entries() == ()


async def test_a_run_is_recorded_with_engine_phases_and_output(toolbox: Toolbox) -> None:
    result = await toolbox.runner.call("first", {})
    record = toolbox.records.get(result.run_id)
    assert (record.tool, record.engine, record.is_running) == ("first", "local", False)
    assert list(result.phases) == ["plan", "queue", "choose", "start", "run", "collect"]
    assert list(record.summary()["seconds"]) == list(result.phases)


async def test_a_call_that_fails_says_in_which_phase_it_did(toolbox: Toolbox, tools: Path) -> None:
    write(tools, "missing", command=["/nowhere/to/be/found"])
    await toolbox.catalog.load()
    with pytest.raises(ExecutionError):
        await toolbox.runner.call("missing", {})
    (record,) = toolbox.records.entries()
    assert record.error is not None
    assert {"plan", "queue", "choose", "start"} <= set(record.summary()["seconds"])
    assert record.phases.current is None


async def test_phases_that_another_packages_engine_measured_are_in_result_and_metrics(tools: Path) -> None:
    def answer(plan: Plan) -> ExecutionResult:
        return ExecutionResult(plan.call.run_id, "answering", "none", 0, phases={"run": 0.0})

    write(tools, "first", command=["/bin/true"])
    settings = Settings.model_validate({"tools": [tools], "root": tools.parent})
    engines = Engines(local=AnsweringEngine(answer))
    catalog = Catalog(settings.tool_directories)
    await catalog.load()
    async with RunRecords(settings.records) as records:
        runner = ToolRunner(catalog, engines, records, settings)
        result = await runner.call("first", {})
    assert list(result.phases) == ["plan", "queue", "choose", "start", "run", "collect"]
    assert {phase for _, phase in runner.tally.phase_durations} == set(result.phases)


async def test_cancelling_a_call_ends_its_process_and_its_record(toolbox: Toolbox, tools: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tools, "forever", command=["/bin/sh", "-c", "echo started; exec sleep 600"])
    await toolbox.catalog.load()
    started = anyio.Event()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await toolbox.runner.call("forever", {}, on_output=lambda *_: started.set())

            tasks.start_soon(run)
            await started.wait()
            tasks.cancel_scope.cancel()
    (record,) = toolbox.records.entries()
    assert record.error is not None
    assert toolbox.runner.admission.running == 0


async def test_an_equal_call_of_a_pure_tool_is_answered_from_the_cache_until_its_files_change(
    toolbox: Toolbox, tools: Path
) -> None:
    folder = tools / "pure"
    write(folder, "pure", command=shell(RANDOM), cache="pure", parameters={"x": {"bind": {"position": 1}}})
    (folder / "helper.py").write_text("one")
    first = await call(toolbox, "pure", x="a")
    assert await call(toolbox, "pure", x="a") == first
    assert await call(toolbox, "pure", x="b") != first
    (folder / "helper.py").write_text("another")
    assert await call(toolbox, "pure", x="a") != first


async def test_a_cached_answer_can_still_be_read_after_the_first_run_is_forgotten(tools: Path) -> None:
    write(tools, "long", command=shell("head -c 120000 /dev/zero | tr '\\0' x"), cache="pure", max_output="200Ki")
    settings = Settings.model_validate({"tools": [tools], "root": tools.parent, "records": {"keep": 0}})
    async with open_toolbox(settings) as toolbox:
        await toolbox.runner.call("long", {})
        await toolbox.runner.call("long", {})
        result = await toolbox.runner.call("long", {})
        record = toolbox.records.get(result.run_id)
        assert await record.read("stdout") == b"x" * 120_000


async def test_a_tool_without_the_word_pure_runs_again_every_time(toolbox: Toolbox, tools: Path) -> None:
    write(tools, "impure", command=shell(RANDOM))
    assert await call(toolbox, "impure") != await call(toolbox, "impure")


@pytest.mark.bubblewrap
async def test_a_mount_that_became_a_link_to_something_sensitive_while_the_call_waited_is_refused(
    tools: Path, tmp_path: Path
) -> None:
    (tmp_path / "work" / "sub").mkdir(parents=True)
    write(tools, "reads", command=["/bin/ls", "/s"], mounts={"./work/sub": "/s"})
    settings = Settings.model_validate({"tools": [tools], "root": tmp_path, "calls": {"max_concurrency": 1}})
    async with open_toolbox(settings) as toolbox:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                async with toolbox.runner.admission.slot("holder"):
                    refused = anyio.Event()

                    async def run() -> None:
                        with pytest.raises(LimitUnsupported, match="sensitive_paths"):
                            await toolbox.runner.call("reads", {})
                        refused.set()

                    tasks.start_soon(run)
                    await until(lambda: toolbox.runner.admission.waiting)
                    (tmp_path / "work" / "sub").rmdir()
                    (tmp_path / "work" / "sub").symlink_to("/")
                await refused.wait()


async def test_an_example_fails_whose_output_breaks_the_schema_that_its_contract_declares(
    toolbox: Toolbox, tools: Path
) -> None:
    write(
        tools,
        "json",
        command=["/bin/echo", '{"x": "no"}'],
        output="json",
        output_schema={"type": "object", "properties": {"x": {"type": "integer"}}},
        examples=[{"arguments": {}}],
    )
    await toolbox.catalog.load()
    contract: ToolContract = toolbox.catalog.get("json").contract
    outcome = await run_example(toolbox.runner, contract, 0)
    assert not outcome.passed
    assert "output_schema" in outcome.problems[0]


async def test_a_context_of_the_wrong_kind_is_refused_by_name(toolbox: Toolbox) -> None:
    contract = toolbox.catalog.get("first").contract
    with pytest.raises(TypeError, match="ExecutionContext, not a dict"):
        await toolbox.engines.get("local").execute(contract, {}, {"k": 1})  # pyright: ignore[reportArgumentType]


class CancellingRecords(RunRecords):
    """Records whose runs are cancelled as soon as they have begun."""

    scope: anyio.CancelScope | None = None

    async def start(
        self, plan: Plan, engine: str, caller: str = "", about: About = NOTHING, phases: PhaseClock | None = None
    ) -> RunRecord:
        record = await super().start(plan, engine, caller, about, phases)
        if self.scope is not None:
            self.scope.cancel()
        return record


@pytest.mark.parametrize("cached", [True, False])
async def test_a_call_that_is_cancelled_as_its_run_begins_leaves_no_record_that_runs(
    toolbox: Toolbox, tools: Path, cached: bool
) -> None:
    script = "head -c 120000 /dev/zero | tr '\\0' x"
    write(tools, "long", command=shell(script), max_output="200Ki", cache="pure" if cached else "none")
    await toolbox.catalog.load()
    async with CancellingRecords(toolbox.settings.records) as records:
        runner = ToolRunner(toolbox.catalog, toolbox.engines, records, toolbox.settings)
        with anyio.fail_after(30):
            await runner.call("long", {})
            with anyio.CancelScope() as records.scope:
                await runner.call("long", {})
        assert records.scope.cancelled_caught
        assert [record.is_running for record in records.entries()] == [False, False]
