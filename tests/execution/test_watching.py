"""Which tools a change on disk touches."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import yaml
from anyio.abc import ObjectReceiveStream

from praxis_mcp.execution import watching
from praxis_mcp.execution.toolbox import open_toolbox
from praxis_mcp.execution.watching import ToolWatch, Touched
from praxis_mcp.settings.model import Settings

pytestmark = pytest.mark.anyio


def write(directory: Path, name: str, **fields: object) -> Path:
    file = directory / name / "contract.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = {"name": name, "description": f"Do {name}.", "engine": "local", "command": ["true"], **fields}
    file.write_text(yaml.safe_dump(kept))
    return file


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    return tmp_path / "tools"


@asynccontextmanager
async def watched(tools: Path) -> AsyncIterator[tuple[ToolWatch, ObjectReceiveStream[Touched]]]:
    """A watch over these tools, and what it says."""
    send, receive = anyio.create_memory_object_stream[Touched](100)
    with anyio.fail_after(60), send, receive:
        async with open_toolbox(Settings(tools=(tools,), root=tools.parent)) as toolbox:
            watch = ToolWatch(toolbox)
            async with anyio.create_task_group() as tasks:
                await tasks.start(watch.run, send.send)
                yield watch, receive
                tasks.cancel_scope.cancel()


async def test_a_contract_that_is_new_changed_broken_or_gone(tools: Path) -> None:
    async with watched(tools) as (_, found):
        file = write(tools, "a")
        assert await found.receive() == Touched(("a",))
        write(tools, "a", timeout=9)
        assert await found.receive() == Touched(("a",))
        file.write_text("name: a\n")
        assert await found.receive() == Touched(findings_changed=True)
        file.unlink()
        assert await found.receive() == Touched((), ("a",), findings_changed=True)


async def test_a_tool_is_touched_by_its_code_and_by_what_it_mounts_and_no_other_tool_is(tools: Path) -> None:
    data, elsewhere = tools.parent / "data", tools.parent / "later"
    data.mkdir()
    write(tools, "code", command=["sh", "{contract_dir}/main.sh"])
    (tools / "code" / "main.sh").write_text("true")
    write(tools, "named", command=["sh", "scripts/run.sh"])
    (tools.parent / "scripts").mkdir()
    (tools.parent / "scripts" / "run.sh").write_text("true")
    write(tools, "mounts", mounts={"data": "/data", "later": "/later"})
    write(tools, "image", engine="docker", image="busybox", mounts={"{contract_dir}": "/tool"})
    write(tools, "built", engine="docker", image="busybox", build={"python": "r.txt"})
    (tools / "built" / "r.txt").write_text("a")
    async with watched(tools) as (_, found):
        (tools / "built" / "r.txt").write_text("ab")
        assert await found.receive() == Touched(("built",))
        (tools / "code" / "main.sh").write_text("false")
        assert await found.receive() == Touched(("code",))
        (tools / "code" / "lib").mkdir()
        (tools / "code" / "lib" / "more.sh").write_text("")
        assert await found.receive() == Touched(("code",))
        (tools.parent / "scripts" / "new").write_text("false")
        os.replace(tools.parent / "scripts" / "new", tools.parent / "scripts" / "run.sh")  # as editors do
        assert await found.receive() == Touched(("named",))
        (data / "a.csv").write_text("1")
        assert await found.receive() == Touched(("mounts",))
        elsewhere.mkdir()
        assert await found.receive() == Touched(("mounts",))
        (tools / "image" / "main.py").write_text("")
        assert await found.receive() == Touched(("image",))


async def test_what_a_run_leaves_behind_touches_nothing(tools: Path) -> None:
    (tools.parent / "out").mkdir()
    file = write(tools, "a", command=["sh", "{contract_dir}/main.sh"], mounts={"out": "/out:rw"})
    async with watched(tools) as (_, found):
        (tools.parent / "out" / "result").write_text("")
        (tools / "a" / "__pycache__").mkdir()
        (tools / "a" / "__pycache__" / "x.pyc").write_text("")
        (tools / "a" / ".main.sh.swp").write_text("")
        (tools / "a" / "main.sh~").write_text("")
        write(tools, "b")
        assert await found.receive() == Touched(("b",))
        file.touch()
        write(tools, "c")
        assert await found.receive() == Touched(("c",))


async def test_a_mount_of_too_many_files_is_named_and_its_changes_are_not_noticed(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST_WATCHED_FILES", 5)
    data = tools.parent / "data"
    data.mkdir()
    for number in range(6):
        (data / str(number)).write_text("")
    write(tools, "a", mounts={"data": "/data"})
    async with watched(tools) as (watch, found):
        assert watch.too_large == (data,)
        (data / "0").write_text("more")
        write(tools, "b")
        assert await found.receive() == Touched(("b",))
