"""A server over HTTP, of a revision before 2026-07-28, that answers without end: what is read of it is bounded."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from praxis_mcp.errors import EngineUnavailable, ExecutionError
from praxis_mcp.upstreams import client as upstream_client
from praxis_mcp.upstreams.spec import OAuthClient, UpstreamSpec
from praxis_mcp.upstreams.transports import http as upstream_http
from praxis_mcp.upstreams.upstream import UpstreamPool

pytestmark = pytest.mark.anyio

LIMIT = 60.0
BOUND = 1024 * 1024
WHOLE = 64 * 1024 * 1024
"""Bytes that the server would send."""
IN_BETWEEN = 16 * 1024 * 1024
"""Bytes that it can get rid of before anyone reads them, taken high: both sides' buffers."""
VERSION = "2025-06-18"
PIECE = b"0" * 64 * 1024


@dataclass
class Verbose:
    """The server, and how much it got rid of."""

    origin: str
    sent: int = 0
    tried: list[str] = field(default_factory=list)

    async def body(self, request: Request, head: bytes) -> AsyncIterator[bytes]:
        yield head
        while self.sent < WHOLE and not await request.is_disconnected():
            self.sent += len(PIECE)
            yield PIECE
            await anyio.lowlevel.checkpoint()  # else it would not be heard that nobody reads any more

    def endless(self, request: Request, kind: str, head: bytes, status: int = 200) -> Response:
        return StreamingResponse(self.body(request, head), status_code=status, media_type=kind)

    async def mcp(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(status_code=405)
        message = json.loads(await request.body())
        identity = message.get("id")
        match message["method"]:
            case "initialize":
                about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "verbose", "version": "1"}}
                return _answer(identity, {"protocolVersion": VERSION, **about})
            case "tools/call":
                self.tried.append(request.headers["accept-encoding"])
                return getattr(self, message["params"]["name"])(request, identity)
            case _ if identity is None:
                return Response(status_code=202)
            case _:
                error = {"code": -32601, "message": "Method not found"}
                return JSONResponse({"jsonrpc": "2.0", "id": identity, "error": error}, status_code=400)

    def echo(self, request: Request, identity: Any) -> Response:
        return _answer(identity, {"content": [{"type": "text", "text": "here"}]})

    def plain(self, request: Request, identity: Any) -> Response:
        return self.endless(request, "application/json", b'{"jsonrpc": "2.0", "id": 1, "result": {"text": "')

    def failure(self, request: Request, identity: Any) -> Response:
        return self.endless(request, "application/json", b'{"jsonrpc": "2.0", "id": 1, "error": "', status=400)

    def page(self, request: Request, identity: Any) -> Response:
        return self.endless(request, "text/html", b"<html>")

    def event(self, request: Request, identity: Any) -> Response:
        return self.endless(request, "text/event-stream", b"data: ")

    def packed(self, request: Request, identity: Any) -> Response:
        body = gzip.compress(b'{"jsonrpc": "2.0", "id": 1, "result": {"text": "' + b"0" * WHOLE)
        return Response(body, media_type="application/json", headers={"Content-Encoding": "gzip"})

    async def wants_token(self, request: Request) -> Response:
        metadata = f"{self.origin}/metadata"
        return Response(status_code=401, headers={"WWW-Authenticate": f'Bearer resource_metadata="{metadata}"'})

    async def metadata(self, request: Request) -> Response:
        return self.endless(request, "application/json", b'{"resource": "')


def _answer(identity: Any, result: dict[str, Any]) -> Response:
    return JSONResponse({"jsonrpc": "2.0", "id": identity, "result": result})


@asynccontextmanager
async def verbose_server() -> AsyncIterator[Verbose]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    found = Verbose(f"http://127.0.0.1:{listener.getsockname()[1]}")
    routes = [
        Route("/mcp", found.mcp, methods=["GET", "POST", "DELETE"]),
        Route("/closed", found.wants_token, methods=["GET", "POST"]),
        Route("/metadata", found.metadata),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes), log_level="critical", timeout_graceful_shutdown=1, timeout_keep_alive=3600
    )
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        try:
            yield found
        finally:
            server.should_exit = True


@pytest.fixture
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_http, "MAX_UPSTREAM_MESSAGE", BOUND)
    monkeypatch.setattr(upstream_client, "MAX_UPSTREAM_MESSAGE", BOUND)


@pytest.mark.usefixtures("small_bound")
@pytest.mark.parametrize(
    ("tool", "problem"),
    [
        ("plain", f"more than {BOUND} bytes"),
        ("failure", f"more than {BOUND} bytes"),
        ("page", f"more than {BOUND} bytes"),
        ("event", f"{BOUND} byte limit"),
        ("packed", "is compressed"),
    ],
)
async def test_an_answer_without_end_costs_its_own_call_and_no_more_memory_than_the_bound(
    tool: str, problem: str
) -> None:
    pool = UpstreamPool()
    async with verbose_server() as server:
        upstream = pool.get(UpstreamSpec("the server", f"{server.origin}/mcp"))
        with anyio.fail_after(LIMIT):
            await upstream.call("echo", {}, timeout=60)
            assert upstream.protocol_version == VERSION
            with pytest.raises(ExecutionError, match=problem):
                await upstream.call(tool, {}, timeout=60)
            assert server.sent < IN_BETWEEN
            answer = await upstream.call("echo", {}, timeout=60)
            await pool.close()
    assert answer["content"][0]["text"] == "here"
    assert set(server.tried) == {"identity"}


@pytest.mark.usefixtures("small_bound")
async def test_metadata_without_end_that_ask_for_oauth_are_bounded_too() -> None:
    pool = UpstreamPool()
    async with verbose_server() as server:
        oauth = OAuthClient("me", "my-secret", server.origin)
        upstream = pool.get(UpstreamSpec("the server", f"{server.origin}/closed", oauth=oauth))
        with anyio.fail_after(LIMIT), pytest.raises(EngineUnavailable, match=f"more than {BOUND} bytes"):
            await upstream.call("echo", {}, timeout=60)
        await pool.close()
    assert server.sent < IN_BETWEEN
