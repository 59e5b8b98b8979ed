"""What a defect of ours, or of an engine, looks like from outside; and what secrets never do."""

import shutil
from pathlib import Path

import pytest
from loguru import logger
from mcp.shared.exceptions import MCPError

from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.execution.records import RunRecord, RunRecords
from praxis_mcp.execution.runner import ToolRunner
from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.plans.model import Plan
from praxis_mcp.serving.server import build_server
from tests.execution.engines import AnsweringEngine, Engines
from tests.serving.clients import ERAS, Era, memory_client, open_server, settings_for, text_of
from tests.serving.sample_tools import python, write_tool

pytestmark = pytest.mark.anyio


def break_down(plan: Plan) -> ExecutionResult:
    raise RuntimeError(f"a defect beside {plan.call.env['TEXT']}")


@pytest.mark.parametrize("era", ERAS)
async def test_an_unexpected_exception_costs_one_call_and_tells_no_values(era: Era, tmp_path: Path) -> None:
    write_tool(tmp_path, "echo", ["true"], parameters={"text": {"type": "string"}})
    said: list[str] = []
    sink = logger.add(said.append, level="TRACE", format="{message}")
    try:
        async with open_toolbox(settings_for(tmp_path)) as opened:
            await opened.loaded()
            engines = Engines(local=AnsweringEngine(break_down))
            runner = ToolRunner(opened.catalog, engines, opened.records, opened.settings)
            toolbox = Toolbox(opened.settings, opened.catalog, engines, opened.records, runner, opened._scanned)
            async with build_server(toolbox) as server, memory_client(server, era) as client:
                result = await client.call_tool("echo", {"text": "my-password"})
                assert result.is_error
                assert "Internal error" in text_of(result)
                assert "my-password" not in text_of(result)
                assert [tool.name for tool in (await client.list_tools()).tools] == ["echo"]
    finally:
        logger.remove(sink)
    log = "".join(said)
    assert "break_down" in log
    assert "RuntimeError" in log
    assert "my-password" not in log


class BrokenRecords(RunRecords):
    """Records with a defect."""

    def get(self, run_id: str, caller: str = "") -> RunRecord:
        raise RuntimeError(f"a defect beside {run_id}")


@pytest.mark.parametrize("era", ERAS)
async def test_an_unexpected_exception_of_a_read_tells_no_values_either(era: Era, tmp_path: Path) -> None:
    said: list[str] = []
    sink = logger.add(said.append, level="TRACE", format="{message}")
    try:
        async with open_toolbox(settings_for(tmp_path)) as opened:
            records = BrokenRecords(opened.settings.records)
            toolbox = Toolbox(opened.settings, opened.catalog, opened.engines, records, opened.runner, opened._scanned)
            async with build_server(toolbox) as server, memory_client(server, era) as client:
                with pytest.raises(MCPError, match=r"Internal error [0-9a-f]{12}") as caught:
                    await client.read_resource("praxis://runs/my-password/stdout")
                assert "my-password" not in caught.value.message
                assert (await client.list_tools()).tools == []
    finally:
        logger.remove(sink)
    log = "".join(said)
    assert "RuntimeError" in log
    assert "my-password" not in log


@pytest.mark.parametrize("era", ERAS)
async def test_what_was_written_and_is_no_more_on_disk_is_told_without_where_it_was(era: Era, tmp_path: Path) -> None:
    write_tool(tmp_path, "long", python("print('x' * 200_000)"))
    async with open_server(settings_for(tmp_path)) as (toolbox, server), memory_client(server, era) as client:
        assert not (await client.call_tool("long", {})).is_error
        (record,) = toolbox.records.entries()
        assert record.directory is not None
        shutil.rmtree(record.directory)
        with pytest.raises(MCPError, match="is kept no more") as caught:
            await client.read_resource(f"praxis://runs/{record.run_id}/stdout")
        assert str(record.directory.parent) not in caught.value.message


async def test_a_secret_in_json_output_is_masked_and_the_json_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "tok-" + "a1b2" * 20
    monkeypatch.setenv("MY_TOKEN", secret)
    write_tool(
        tmp_path,
        "leak",
        python("import json, os; print(json.dumps({'token': os.environ['TOKEN'], 'after': 1}))"),
        output="json",
        env={"TOKEN": {"secret": "MY_TOKEN"}},
    )
    async with open_server(settings_for(tmp_path)) as (_, server), memory_client(server, "legacy") as client:
        result = await client.call_tool("leak", {})
        assert result.structured_content is not None, text_of(result)
        assert result.structured_content["after"] == 1
        assert secret not in result.model_dump_json()
