"""The official conformance suite, against a server of plain contracts.

What it may fail stands in a file for each revision, with its reason. The suite fails for whatever else fails, and for
an entry that no longer does.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest

from tests.kit.node import NodeProgram
from tests.serving.http_server import HttpServer, running_http

HERE = Path(__file__).parent

pytestmark = [pytest.mark.anyio, pytest.mark.node]


@pytest.fixture(scope="module")
async def server(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpServer]:
    tools = tmp_path_factory.mktemp("conformance") / "tools"
    shutil.copytree(HERE / "tools", tools)  # one of them adds to the others
    async with running_http(tools, "--http") as server:
        yield server


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_every_applicable_scenario_of_a_revision_passes(
    server: HttpServer, mcp_conformance: NodeProgram, revision: str
) -> None:
    run = partial(
        mcp_conformance.run,
        "server",
        *("--url", server.mcp.replace("127.0.0.1", "localhost")),
        *("--requirements", revision),
        *("--expected-failures", str(HERE / f"expected-{revision}.yaml")),
        timeout=120,
    )
    done = await anyio.to_thread.run_sync(run)
    summary = done.stdout.partition("=== SUMMARY ===")[2]
    assert done.returncode == 0, summary or done.stderr
    assert "\u2713 tools-list: " in summary
    assert "\u2713 dns-rebinding-protection: " in summary
