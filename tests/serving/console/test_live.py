"""Runs that go on, as a real server tells browsers of them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from praxis_mcp.serving.access import hash_token
from praxis_mcp.serving.console.live import MAX_OWN_STREAMS
from tests.kit.contracts import write_tool
from tests.kit.until import until
from tests.serving.clients import LIMIT, server_environment
from tests.serving.console.ground import csrf_of
from tests.serving.http_server import HttpServer, http_client, running_http

pytestmark = pytest.mark.anyio

STEPS = 'echo \'one <b>\'; while [ ! -e "$GO" ]; do sleep 0.02; done; echo two >&2; exec sleep "$LONG"'


@asynccontextmanager
async def live_server(directory: Path, *flags: str, http: Mapping[str, Any] | None = None) -> AsyncIterator[HttpServer]:
    """A server, and a project with a tool that goes on until it may."""
    (directory / "tools").mkdir()
    parameters = {"go": {"type": "string"}, "long": {"type": "string"}}
    write_tool(directory / "tools", "steps", ["sh", "-c", STEPS], parameters=parameters)
    async with running_http(
        directory, "--http", "--console", *flags, http=http, PRAXIS_RECORDS__DIRECTORY=str(directory / "records")
    ) as server:
        yield server


async def link_of(server: HttpServer) -> str:
    lines = await until(lambda: [line for line in server.log if line.startswith("Console at ")])
    return lines[-1].removeprefix("Console at ")


@asynccontextmanager
async def owner(server: HttpServer) -> AsyncIterator[httpx2.AsyncClient]:
    async with http_client(follow_redirects=True, base_url=server.base) as browser:
        browser.headers["Accept"] = "text/html"
        assert (await browser.get(await link_of(server))).status_code == 200
        yield browser


@asynccontextmanager
async def calling(directory: Path, go: Path, long: str) -> AsyncIterator[anyio.abc.Process]:
    """Another process that calls the tool."""
    process = await anyio.open_process(
        [sys.executable, "-m", "praxis_mcp", "call", "steps", f"go={go}", f"long={long}"],
        cwd=directory,
        env=server_environment(PRAXIS_RECORDS__DIRECTORY=str(directory / "records")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def running_run(browser: httpx2.AsyncClient) -> str:
    async def look() -> str:
        found = re.search(r"/console/runs/([0-9a-f]{32})", (await browser.get("/console/live")).text)
        return found[1] if found else ""

    return await until(look)


async def test_output_of_a_run_of_another_process_comes_as_events_until_it_has_ended(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with live_server(tmp_path) as server, owner(server) as browser, calling(tmp_path, go, "0"):
        run_id = await running_run(browser)
        got: dict[str, str] = {"stdout": "", "stderr": ""}
        events: list[str] = []
        with anyio.fail_after(LIMIT):
            async with browser.stream("GET", f"/console/runs/{run_id}/events?after=0") as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                async for line in answer.aiter_lines():
                    if line.startswith("event: "):
                        events.append(line.removeprefix("event: "))
                    if line.startswith("data: ") and events[-1] == "output":
                        piece = json.loads(line.removeprefix("data: "))
                        got[piece["stream"]] += piece["text"]
                    if got["stdout"]:
                        go.touch()
        assert events[-1] == "end"
        assert got["stdout"] == "one <b>\n"
        page = (await browser.get(f"/console/runs/{run_id}")).text
        assert "one &lt;b&gt;" in page
        assert "two" in page
        assert (await browser.get("/console/runs/nothing/events")).status_code == 404


async def test_the_list_of_runs_that_go_on_says_when_it_changes(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with live_server(tmp_path) as server, owner(server) as browser:
        with anyio.fail_after(LIMIT):
            async with browser.stream("GET", "/console/live/events") as answer:
                lines = answer.aiter_lines()
                assert await anext(lines) == ": open"
                async with calling(tmp_path, go, "0"):
                    async for line in lines:
                        if line == "event: changed":
                            break
                    assert "steps" in (await browser.get("/console/live")).text
                    go.touch()
                    async for line in lines:
                        if line == "event: changed":
                            break


async def test_a_stream_ends_with_the_session_that_opened_it(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server, owner(server) as browser:
        csrf = csrf_of(await browser.get("/console/live"))
        with anyio.fail_after(LIMIT):
            async with browser.stream("GET", "/console/live/events") as answer:
                lines = answer.aiter_lines()
                assert await anext(lines) == ": open"
                await browser.post("/console/logout", data={"csrf": csrf})
                assert [line async for line in lines if line.startswith("event:")] == []
        assert (await browser.get("/console/live/events", headers={"Accept": "*/*"})).status_code == 401


async def test_no_caller_holds_all_streams_however_many_they_ask_for_at_once(tmp_path: Path) -> None:
    tokens = {name: {"sha256": hash_token(name), "scopes": ["tools:*"]} for name in ("anna", "bert")}
    answers: list[int] = []
    async with (
        live_server(tmp_path, http={"auth__tokens": tokens}) as server,
        http_client(base_url=server.base) as anna,
    ):
        assert (await anna.post("/console/login", data={"token": "anna"})).status_code == 303
        assert (await anna.head("/console/live/events")).status_code == 200  # and does not go on

        async def ask() -> None:
            async with anna.stream("GET", "/console/live/events") as answer:
                answers.append(answer.status_code)
                await anyio.sleep_forever()

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks, http_client(base_url=server.base) as bert:
                for _ in range(3 * MAX_OWN_STREAMS):
                    tasks.start_soon(ask)
                await until(lambda: len(answers) == 3 * MAX_OWN_STREAMS)
                assert answers.count(200) == MAX_OWN_STREAMS
                await bert.post("/console/login", data={"token": "bert"})
                async with bert.stream("GET", "/console/live/events") as answer:
                    assert answer.status_code == 200
                tasks.cancel_scope.cancel()


async def test_open_streams_do_not_keep_a_server_from_ending(tmp_path: Path) -> None:
    async with live_server(tmp_path) as server, owner(server) as browser:
        with anyio.fail_after(LIMIT):
            async with browser.stream("GET", "/console/live/events") as answer:
                lines = answer.aiter_lines()
                assert await anext(lines) == ": open"
                server.signal(signal.SIGTERM)
                assert [line async for line in lines if line.startswith("event:")] == []
            assert await server.exit_code() == 0
