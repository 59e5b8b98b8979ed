"""The package says nothing until whoever runs the process wants to hear it; the command line does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from praxis_mcp.execution.selection import EngineSelector
from praxis_mcp.execution.servers import reap_leftovers
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import BackgroundTasks
from tests.execution.engines import AnsweringEngine, Engines

BROKEN = "name: broken\nimage: x\ncommand: 7\n"
USE = """
import anyio
from pathlib import Path
{before}
import praxis_mcp
{after}
async def main():
    settings = praxis_mcp.Settings(tools=(Path({tools!r}),))
    async with praxis_mcp.open_toolbox(settings) as toolbox:
        assert toolbox.catalog.diagnostics
anyio.run(main)
"""
ENABLE = "from loguru import logger; logger.enable('praxis_mcp')"


def said(tools: Path, before: str = "", after: str = "") -> str:
    (tools / "broken.contract.yaml").write_text(BROKEN)
    program = USE.format(tools=str(tools), before=before, after=after)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


def test_the_library_writes_nothing(tmp_path: Path) -> None:
    assert said(tmp_path) == ""


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_application_gets_the_log_by_enabling_it_whenever_it_does(tmp_path: Path, when: str) -> None:
    assert "broken.contract.yaml" in said(tmp_path, **{when: ENABLE})


def test_the_command_line_logs_as_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "broken.contract.yaml").write_text(BROKEN)
    done = subprocess.run(
        [sys.executable, "-m", "praxis_mcp", "list", "--tools", str(tmp_path), "--log-level", "info"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "settings: " in done.stderr


class DefectiveEngine(AnsweringEngine):
    """Fails by an exception of no kind that anybody expects, with a secret in its message."""

    async def reap(self) -> tuple[str, ...]:
        raise RuntimeError("hidden-value")

    async def cleanup(self) -> None:
        raise RuntimeError("hidden-value")


async def fail() -> None:
    raise RuntimeError("hidden-value")


@pytest.mark.anyio
async def test_defects_that_reach_nobody_are_logged_by_place_and_never_by_message() -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="DEBUG", format="{message}")
    try:
        engines = Engines(answering=DefectiveEngine())
        await reap_leftovers(engines, EngineSelector(engines))
        await engines.cleanup()
        tasks = BackgroundTasks()
        tasks.start(fail, "a task")
        await tasks.close(5)
        await asyncio.sleep(0)  # the task's callbacks
    finally:
        logger.remove(sink)
    told = [line for line in lines if "RuntimeError at " in line]
    assert len(told) == 3
    assert all("test_silence.py:" in line for line in told)
    assert not [line for line in lines if "hidden-value" in line]
