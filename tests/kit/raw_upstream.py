"""An MCP server over HTTP, of a revision before 2026-07-28, whose every response a test decides, byte by byte."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn
from anyio.streams.memory import MemoryObjectSendStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

VERSION = "2025-06-18"
ABOUT = {"protocolVersion": VERSION, "capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"}}
Message = dict[str, Any]


@dataclass
class RawUpstream:
    """The server.

    Attributes:
        url: its endpoint.
        answers: method → what answers it instead of `usual`; may return None for that.
        lost: answers a request whose session is not among `sessions`; None has none.
        sessions: those that are known; clearing it is what a restart does.
        begun: sessions that were ever begun.
        calls: arguments of the tools that ran.
        seen: methods of the requests that came.
        gates: method → what its answers wait for.
    """

    url: str
    answers: dict[str, Callable[[Message], Response | None]] = field(default_factory=dict)
    lost: Callable[[Message], Response] | None = None
    sessions: set[str] = field(default_factory=set)
    begun: int = 0
    calls: list[Any] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    gates: dict[str, anyio.Event] = field(default_factory=dict)

    async def mcp(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(status_code=405)
        message = json.loads(await request.body())
        if "id" not in message:
            return Response(status_code=202)
        method = message["method"]
        self.seen.append(method)
        if method in self.gates:
            await self.gates[method].wait()
        in_session = method not in ("initialize", "server/discover")
        if self.lost is not None and in_session and request.headers.get("mcp-session-id") not in self.sessions:
            return self.lost(message)
        chosen = self.answers.get(method)
        return (chosen(message) if chosen else None) or self.usual(message)

    def usual(self, message: Message) -> Response:
        match message["method"]:
            case "initialize":
                self.begun += 1
                self.sessions.add(session := secrets.token_hex(8))
                return JSONResponse(answer(message, result=ABOUT), headers={"Mcp-Session-Id": session})
            case "tools/list":
                return JSONResponse(answer(message, result={"tools": [{"name": "t", "inputSchema": {}}]}))
            case "tools/call":
                self.calls.append(message["params"]["arguments"])
                return JSONResponse(answer(message, result=text("fine")))
            case "ping":
                return JSONResponse(answer(message, result={}))
        return JSONResponse(answer(message, error={"code": -32601, "message": "Method not found"}))


def answer(message: Message, **parts: Any) -> dict[str, Any]:
    """An answer under the request's id."""
    return {"jsonrpc": "2.0", "id": message["id"], **parts}


def text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


@asynccontextmanager
async def served(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, timeout_keep_alive=3600)
    server = uvicorn.Server(config)
    listener.listen(64)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        try:
            yield
        finally:
            server.should_exit = True


@asynccontextmanager
async def raw_upstream() -> AsyncIterator[RawUpstream]:
    """One at a free port of the loopback interface, in this process."""
    listener, origin = _listener()
    found = RawUpstream(f"{origin}/mcp")
    async with served(Starlette(routes=[Route("/mcp", found.mcp, methods=["GET", "POST", "DELETE"])]), listener):
        yield found


class RawSseUpstream(RawUpstream):
    """The same over HTTP+SSE of 2024-11-05. A session is its event stream; a message for another gets 400."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.opened = ExitStack()
        self._streams: dict[str, MemoryObjectSendStream[bytes]] = {}

    def forget(self) -> None:
        """Know no session any more, though the streams are still open."""
        self.sessions.clear()

    async def stream(self, request: Request) -> Response:
        session = secrets.token_hex(8)
        self.sessions.add(session)
        send, receive = anyio.create_memory_object_stream[bytes](16)
        self._streams[session] = self.opened.enter_context(send)
        self.opened.enter_context(receive)
        # It begins with a byte order mark, as files from some editors do.
        await send.send(f"\N{BYTE ORDER MARK}event: endpoint\ndata: /message?session={session}\n\n".encode())
        return StreamingResponse(receive, media_type="text/event-stream; charset=utf-8")

    async def message(self, request: Request) -> Response:
        session = request.query_params["session"]
        if session not in self.sessions:
            return JSONResponse({"error": "No transport for that session"}, status_code=400)
        message = json.loads(await request.body())
        if "id" in message:
            await self._streams[session].send(b"data: " + bytes(self.usual(message).body) + b"\n\n")
        return Response("Accepted", status_code=202)


@asynccontextmanager
async def raw_sse_upstream() -> AsyncIterator[RawSseUpstream]:
    """One at a free port of the loopback interface, in this process."""
    listener, origin = _listener()
    found = RawSseUpstream(f"{origin}/sse")
    routes = [Route("/sse", found.stream, methods=["GET"]), Route("/message", found.message, methods=["POST"])]
    with found.opened:
        async with served(Starlette(routes=routes), listener):
            yield found


def _listener() -> tuple[socket.socket, str]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"
