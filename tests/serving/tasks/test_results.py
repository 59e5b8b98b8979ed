"""What is kept of the results of tasks, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tests.kit.records import database_in
from tests.kit.tasks import TasksExtension, ended, get, start
from tests.serving.clients import memory_client, open_server, settings_for
from tests.serving.sample_tools import python, write_tool
from tests.serving.tasks.tools import connect_keeping, write_task_tools

pytestmark = pytest.mark.anyio
SECRET = "correct-horse-battery"
TELLS = """
import os, sys
print("progress: 1/2", os.environ["KEY"], file=sys.stderr, flush=True)
print("it is", os.environ["KEY"])
"""


def links_of(task: dict[str, Any]) -> list[str]:
    return [block["uri"] for block in task["result"]["content"] if block["type"] == "resource_link"]


async def test_a_result_that_is_too_long_becomes_an_error_with_links_to_what_the_run_wrote(tmp_path: Path) -> None:
    write_task_tools(tmp_path)
    async with connect_keeping(
        "memory", "modern", tmp_path, tasks={"max_result": 1024}, extensions=[TasksExtension()]
    ) as client:
        task = await ended(client, (await start(client, "leaves")).task_id)
        assert task["status"] == "completed"
        assert task["result"]["isError"] is True
        assert "tasks.max_result" in task["result"]["content"][0]["text"]
        read: Any = await client.read_resource(links_of(task)[-1])
        assert read.contents[0].text == "the whole report"


async def test_a_task_keeps_its_result_when_the_record_of_its_run_has_given_way_and_its_links_say_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "tools").mkdir()
    write_task_tools(tmp_path / "tools")
    records = tmp_path / "records"
    settings = settings_for(tmp_path / "tools", records={"directory": str(records)})
    extensions = [TasksExtension()]
    async with open_server(settings) as (_, server), memory_client(server, "modern", extensions=extensions) as client:
        task = await ended(client, (await start(client, "leaves")).task_id)
    database = database_in(records)
    database.remove(database.find_ids("", 10))
    database.close()
    async with open_server(settings) as (_, server), memory_client(server, "modern", extensions=extensions) as client:
        assert await get(client, task["taskId"]) == task
        with pytest.raises(MCPError, match="praxis://runs/"):
            await client.read_resource(links_of(task)[-1])


async def test_a_secret_that_a_tool_writes_is_in_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_SECRET", SECRET)
    (tmp_path / "tools").mkdir()
    write_tool(
        tmp_path / "tools",
        "tells",
        python(TELLS),
        execution="task",
        retry="safe",
        env={"KEY": {"secret": "THE_SECRET"}},
    )
    settings = settings_for(
        tmp_path / "tools",
        records={"directory": str(tmp_path / "records")},
        secrets={"THE_SECRET": {"env": "THE_SECRET"}},
    )
    extensions = [TasksExtension()]
    async with open_server(settings) as (_, server), memory_client(server, "modern", extensions=extensions) as client:
        task = await ended(client, (await start(client, "tells")).task_id)
    assert task["result"]["content"][0]["text"].startswith("it is ")
    assert SECRET not in str(task)
    for file in (tmp_path / "records").rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
            assert file.stat().st_mode & 0o077 == 0, file
