"""What a defect of ours, or of an engine, looks like from outside; and what secrets never do."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from mcp.shared.exceptions import MCPError

from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.execution.records.archive import RunArchive
from praxis_mcp.execution.records.record import RunRecord
from praxis_mcp.execution.records.runs import RunRecords
from praxis_mcp.execution.runner import ToolRunner
from praxis_mcp.execution.toolbox import open_toolbox
from praxis_mcp.plans.model import Plan
from praxis_mcp.serving.mcp.server import PraxisServer
from praxis_mcp.support.logs import logger
from tests.execution.engines import AnsweringEngine, Engines
from tests.kit.records import database_in
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
            engines = Engines(local=AnsweringEngine(break_down))
            runner = ToolRunner(opened.catalog, engines, opened.records, opened.settings)
            toolbox = replace(opened, engines=engines, runner=runner)
            async with PraxisServer.open(toolbox) as server, memory_client(server, era) as client:
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
            toolbox = replace(opened, records=BrokenRecords(opened.settings.records))
            async with PraxisServer.open(toolbox) as server, memory_client(server, era) as client:
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
async def test_what_was_written_and_is_gone_from_disk_is_reported_without_where_it_was(
    era: Era, tmp_path: Path
) -> None:
    write_tool(tmp_path, "long", python("print('x' * 200_000)"))
    async with open_server(settings_for(tmp_path)) as (toolbox, server), memory_client(server, era) as client:
        assert not (await client.call_tool("long", {})).is_error
        (record,) = toolbox.records.entries()
        assert record.directory is not None
        shutil.rmtree(record.directory)
        with pytest.raises(MCPError, match="is no longer kept") as caught:
            await client.read_resource(f"praxis://runs/{record.run_id}/stdout")
        assert str(record.directory.parent) not in caught.value.message


async def test_a_secret_in_json_output_is_masked_and_the_json_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import json, os\n"
        "token = os.environ['TOKEN']\n"
        "numbered = ''.join(f'\\\\u{ord(each):04X}' for each in token)\n"
        "print('{%s: 1, %s' % (json.dumps(token), json.dumps({'token': token, 'in': json.dumps([token])})[1:-1]))\n"
        'print(\', "numbered": ["%s"], "after": 1}\' % numbered)\n'
    )
    write_tool(tmp_path, "leak", python(code), output="json", env={"TOKEN": {"secret": "MY_TOKEN"}})
    for secret in ("tok-" + "a1b2" * 20, 'pa"ss\\w\u00f6rd1', "\u2028line/'\t'"):
        monkeypatch.setenv("MY_TOKEN", secret)
        async with open_server(settings_for(tmp_path)) as (_, server), memory_client(server, "legacy") as client:
            result = await client.call_tool("leak", {})
        assert result.structured_content == {
            "***": 1,
            "token": "***",
            "in": '["***"]',
            "numbered": ["***"],
            "after": 1,
        }, text_of(result)
        for spelled in (secret, json.dumps(secret)[1:-1]):
            assert spelled not in text_of(result)


@pytest.mark.bubblewrap
async def test_a_secret_in_the_names_of_files_is_masked_wherever_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "tok-one-two")
    code = (
        "import os, pathlib\n"
        "token = os.environ['TOKEN']\n"
        "out = pathlib.Path(os.environ['PRAXIS_OUTPUT_DIR'])\n"
        "(out / token).mkdir()\n"
        "for name in (f'{token}.txt', token.replace('-', '%2d') + '.txt', f'{token}/{token}', 'plain', '***.txt'):\n"
        "    (out / name).write_text(name[:3])\n"
        "pathlib.Path('/data', token).touch()\n"
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    (tmp_path / "data").mkdir()
    secret = {"TOKEN": {"secret": "MY_TOKEN"}}
    mounts = {"./data": "/data:rw"}
    write_tool(tools, "leak", python(code), artifacts=["/out/**"], env=secret, mounts=mounts)
    kept = tmp_path / "records"
    records = {"enabled": True, "directory": kept}
    settings = settings_for(tools, root=tmp_path, engines={"local": {"sandbox": "require"}}, records=records)
    async with open_server(settings) as (toolbox, server), memory_client(server, "modern") as client:
        result = await client.call_tool("leak", {})
        assert not result.is_error, text_of(result)
        record = toolbox.records.entries()[0]
        contents = {"***.txt": "***", "***.txt~2": "tok", "***.txt~3": "tok", "***/***": "tok", "plain": "pla"}
        assert {item.name for item in record.artifacts} == set(contents)
        for told in (result.model_dump_json(), json.dumps(record.summary())):
            assert "tok-one-two" not in told
            assert "tok%2done" not in told
        assert "Changed files: data/***" in text_of(result)
        for name, content in contents.items():
            read = await client.read_resource(f"praxis://runs/{record.run_id}/artifacts/{quote(name)}")
            assert read.contents[0].model_dump()["text"] == content
    # As other processes find it: on disk, and by the database.
    names = [str(path.relative_to(kept)) for path in kept.rglob("*")]
    assert not [name for name in names if "tok" in name]
    assert len(names) > len(contents)
    for file in kept.rglob("*"):
        assert not file.is_file() or b"tok-one-two" not in file.read_bytes()
    database = database_in(kept)
    archive = RunArchive(kept, database)
    found = archive.artifacts(archive.find(record.run_id))
    database.close()
    assert {item.name: item.file.read_text() for item in found} == contents
