"""Several servers behind one address: what one did is read from every other, by its caller only, and clients whose
session another server has begin a new one."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from praxis_mcp.serving.access import hash_token
from tests.kit import node
from tests.kit.command_line import praxis
from tests.kit.node import NodeProgram
from tests.kit.postgres import shared_server
from tests.kit.tasks import TasksExtension, ended, start
from tests.kit.until import until
from tests.serving.clients import LIMIT
from tests.serving.http_server import HttpServer, client_of, http_client, running_http
from tests.serving.sample_tools import python, write_tool
from tests.serving.tasks.tools import write_task_tools

pytestmark = pytest.mark.anyio

ADA, BOB = "praxis_ada", "praxis_bob"
LEAVES = """
import os, pathlib, sys
out = pathlib.Path(os.environ["PRAXIS_OUTPUT_DIR"])
(out / "report.txt").write_text("the whole report")
(out / "deep").mkdir()
(out / "deep/numbers.bin").write_bytes(bytes(range(256)) * 4096)
print("y" * 200_000)
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    directory.mkdir()
    write_task_tools(directory)
    write_tool(directory, "left", python(LEAVES), artifacts=["/out/*.txt", "/out/deep/*"])
    return directory


@asynccontextmanager
async def replicas(tools: Path, tmp_path: Path, **environment: str) -> AsyncIterator[tuple[HttpServer, HttpServer]]:
    """Two servers of the same tools and one database; the directories of their records are their own."""
    tokens = {name: {"sha256": hash_token(token)} for name, token in (("ada", ADA), ("bob", BOB))}
    shared = {"PRAXIS_RECORDS__URL": shared_server().database(), "PRAXIS_ROOT": str(tools), **environment}

    def serving(name: str) -> Any:
        own: dict[str, Any] = {"PRAXIS_RECORDS__DIRECTORY": str(tmp_path / name), **shared}
        http = {"auth": {"tokens": tokens}, "console": {"enabled": True}}
        return running_http(tools, "--http", http=http, **own)

    async with serving("one") as one, serving("two") as two:
        yield one, two


async def whole(client: Client, uri: str) -> bytes:
    """All of a resource, read part by part."""
    text, address = b"", uri
    while address:
        first, *rest = (await client.read_resource(address)).contents
        piece: Any = first
        text += base64.b64decode(piece.blob) if hasattr(piece, "blob") else piece.text.encode()
        address = rest[0].uri if rest else ""
    return text


def count_is(url: str, counted: str, rows: int) -> bool:
    """Whether there are so many rows in a table of the records."""
    return shared_server().sql(f"SELECT count(*) FROM praxis_mcp.{counted}", url) == [(rows,)]


async def shared(client: Client, uri: str) -> bytes:
    """As `whole`, of what another server has put into the database: before its answer, unless that took too long on a
    busy machine."""

    async def read() -> bytes | None:
        try:
            return await whole(client, uri)
        except MCPError:
            return None

    found = await until(read, every=0.2)
    assert found is not None
    return found


def links_of(content: list[Any]) -> dict[str, str]:
    uris = [
        block["uri"] if isinstance(block, dict) else block.uri for block in content if _kind(block) == "resource_link"
    ]
    return {uri.rpartition("/")[2]: uri for uri in uris}


def _kind(block: Any) -> str:
    return block["type"] if isinstance(block, dict) else block.type


@pytest.mark.postgres
async def test_what_a_call_left_is_read_from_every_server_by_its_caller_only(tools: Path, tmp_path: Path) -> None:
    async with replicas(tools, tmp_path) as (one, two):
        async with client_of(one, ADA) as client:
            links = links_of((await client.call_tool("left", {})).content)
        assert links.keys() == {"stdout", "report.txt", "numbers.bin"}
        run = links["stdout"].removesuffix("/stdout")
        async with client_of(two, ADA) as client:
            assert await shared(client, links["stdout"]) == b"y" * 200_000 + b"\n"
            assert await whole(client, links["report.txt"]) == b"the whole report"
            assert await whole(client, links["numbers.bin"]) == bytes(range(256)) * 4096
            assert [resource.uri for resource in (await client.list_resources()).resources] == [run]
        async with client_of(two, BOB) as client:
            assert (await client.list_resources()).resources == []
            for uri in (run, *links.values()):
                with pytest.raises(MCPError, match="of yours is kept"):
                    await client.read_resource(uri)
        async with http_client() as browser:
            await browser.post(f"{two.base}/console/login", data={"token": ADA}, headers={"Origin": two.base})
            page = await browser.get(f"{two.base}/console/runs/{run.rpartition('/')[2]}")
            assert page.status_code == 200
            assert "report.txt" in page.text


@pytest.mark.postgres
async def test_the_command_line_of_another_machine_reads_and_removes_what_a_run_left(
    tools: Path, tmp_path: Path
) -> None:
    url = shared_server().database()
    async with replicas(tools, tmp_path, PRAXIS_RECORDS__URL=url) as (one, _), client_of(one, ADA) as client:
        await client.call_tool("left", {})
        for counted, rows in (
            ("run_files", 4),  # 1 MiB is two pieces
            ("runs WHERE ended IS NOT NULL", 1),
        ):
            await until(partial(count_is, url, counted, rows))
    own = {"PRAXIS_RECORDS__URL": url, "PRAXIS_RECORDS__DIRECTORY": str(tmp_path / "third")}

    def run(*words: str) -> str:
        done = praxis("runs", *words, cwd=tmp_path, env={**os.environ, **own})
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert await anyio.to_thread.run_sync(run, "logs", "last") == "y" * 200_000 + "\n"
    await anyio.to_thread.run_sync(run, "artifacts", "last", "--to", str(tmp_path / "out"))
    assert (tmp_path / "out/report.txt").read_text() == "the whole report"
    await anyio.to_thread.run_sync(run, "rm", "last")
    assert count_is(url, "run_files", 0)
    assert not [path.name for path in (tmp_path / "third/files").iterdir()]


@pytest.mark.postgres
async def test_files_beyond_the_bound_stay_with_their_server(tools: Path, tmp_path: Path) -> None:
    async with replicas(tools, tmp_path, PRAXIS_RECORDS__MAX_SHARED="100") as (one, two):
        async with client_of(one, ADA) as client:
            links = links_of((await client.call_tool("left", {})).content)
            assert len(await whole(client, links["stdout"])) == 200_001
        async with client_of(two, ADA) as client:
            assert await shared(client, links["report.txt"]) == b"the whole report"
            with pytest.raises(MCPError, match="no longer kept"):
                await client.read_resource(links["stdout"])


@pytest.mark.postgres
async def test_what_somebody_put_in_place_of_a_runs_files_in_a_shared_directory_leads_nowhere(
    tools: Path, tmp_path: Path
) -> None:
    shared_directory, secrets = tmp_path / "records", tmp_path / "secrets"
    (secrets / "deep").mkdir(parents=True)
    for name in ("stdout", "report.txt", "deep/numbers.bin"):
        (secrets / name).write_text("this is secret")
    # As where all have one file system, and the database has none of the files.
    own = {"PRAXIS_RECORDS__DIRECTORY": str(shared_directory), "PRAXIS_RECORDS__MAX_SHARED": "0"}
    async with (
        replicas(tools, tmp_path, **own) as (one, two),
        client_of(one, ADA) as client,
        client_of(two, ADA) as other,
    ):
        for is_link in (True, False):
            links = links_of((await client.call_tool("left", {})).content)
            run = shared_directory / "files" / links["stdout"].removesuffix("/stdout").rpartition("/")[2]
            found = {path.name: path for path in run.rglob("*") if path.is_file()}
            assert links.keys() <= found.keys()
            for name, path in found.items():
                path.unlink()
                if is_link:
                    path.symlink_to(secrets / ("deep/numbers.bin" if name == "numbers.bin" else name))
                else:
                    os.mkfifo(path)
            for uri in links.values():
                for reader in (other, client):
                    with pytest.raises(MCPError, match=r"no longer kept|no resource"):
                        await whole(reader, uri)


@pytest.mark.postgres
async def test_a_task_is_followed_on_another_server_to_all_that_it_left(tools: Path, tmp_path: Path) -> None:
    async with (
        replicas(tools, tmp_path) as (one, two),
        client_of(one, ADA, extensions=[TasksExtension()]) as client,
        client_of(two, ADA, extensions=[TasksExtension()]) as other,
    ):
        task = await ended(other, (await start(client, "leaves")).task_id)
        links = links_of(task["result"]["content"])
        assert await shared(other, links["report.txt"]) == b"the whole report"
        assert len(await shared(other, links["stdout"])) > 100_000


class _Balanced(httpx2.AsyncHTTPTransport):
    """Sends every request to one server, whichever was asked."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        target = httpx2.URL(self.base)
        request.url = request.url.copy_with(port=target.port)
        request.headers["Host"] = target.netloc.decode()
        return await super().handle_async_request(request)


async def test_a_session_that_meets_another_server_is_answered_so_that_its_client_begins_again(
    sample_directory: Path,
) -> None:
    async with (
        running_http(sample_directory) as one,
        running_http(sample_directory) as two,
        _Balanced(one.base) as balancer,
        httpx2.AsyncClient(transport=balancer, timeout=LIMIT) as http,
    ):

        def line() -> Any:
            return streamable_http_client(one.mcp, http_client=http)

        async with Client(line(), mode="legacy", read_timeout_seconds=LIMIT) as client:
            assert not (await client.call_tool("echo", {"text": "a"})).is_error
            balancer.base = two.base
            with pytest.raises(MCPError, match="Session not found"):  # with status 404
                await client.call_tool("echo", {"text": "b"})
            async with Client(line(), mode="legacy", read_timeout_seconds=LIMIT) as again:
                assert not (await again.call_tool("echo", {"text": "c"})).is_error


@pytest.mark.node
async def test_a_typescript_client_gets_404_and_begins_again(
    node_programs: Callable[[Callable[[], NodeProgram]], NodeProgram], sample_directory: Path
) -> None:
    program = await anyio.to_thread.run_sync(node_programs, node.typescript_sessions)
    async with running_http(sample_directory) as one, running_http(sample_directory) as two:
        done = await anyio.to_thread.run_sync(program.run, one.mcp, two.mcp)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"before": "one\n", "lost": 404, "after": "three\n"}
