"""How a server leaves: first it says so, then it takes no new calls, and those that run may end."""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from praxis_mcp.settings.http import CONSOLE_PATH

REFUSED_FOR = 1
"""Seconds after which a refused client may try again: another server, or the next one, answers then."""
_SHUTTING_DOWN = "This server is shutting down, and nothing has begun here. Try again."
_CODE = 503
"""Of the JSON-RPC error: outside of what the specification keeps for itself (-32768 to -32000)."""
_BEGINNINGS = frozenset({"initialize", "tools/call", "subscriptions/listen"})
"""Methods that begin something. All others may belong to a call that runs or has ended: some clients ask for the list
of tools once they have an answer, to check that."""


class Drain:
    """How far the end of a server has come.

    Attributes:
        is_leaving: ``/ready`` says no, and connections end with the answers to their requests, so that balancers and
            clients turn to another server; calls are taken as before.
        refuses: nothing new is taken.
    """

    def __init__(self) -> None:
        self.is_leaving = False
        self.refuses = False

    def leave(self) -> None:
        """Ask clients to go elsewhere."""
        self.is_leaving = True

    def refuse(self) -> None:
        """Take nothing new from now on."""
        self.is_leaving = self.refuses = True

    def refuses_at_once(self, scope: Scope, *, standing: bool) -> bool:
        """Whether a request begins something that will not be taken, as far as that is known before its body is."""
        path: str = scope["path"]
        acts = scope["method"] == "POST" and (path == CONSOLE_PATH or path.startswith(f"{CONSOLE_PATH}/"))
        return self.refuses and (standing or acts)

    def parting(self, message: Message) -> Message:
        """A part of a response, which closes its connection where the server is leaving."""
        if self.is_leaving and message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            headers["Connection"] = "close"
            return {**message, "headers": headers.raw}
        return message


def refusal(request_id: Any = None) -> JSONResponse:
    """The answer to what would begin here: 503, with a JSON-RPC error which clients show."""
    error = {"code": _CODE, "message": _SHUTTING_DOWN, "data": {"retryAfter": REFUSED_FOR}}
    body = {"jsonrpc": "2.0", "id": request_id, "error": error}
    return JSONResponse(body, status_code=503, headers={"Retry-After": str(REFUSED_FOR)})


class NewCallsRefused:
    """ASGI middleware, behind `BodyLimit`, that answers 503 to messages which begin something, once nothing new is
    taken. What clients send about calls that run reaches them."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if not self._drain.refuses or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        first = await receive()
        begins, request_id = _begins(first.get("body", b""))
        if begins:
            await refusal(request_id)(scope, receive, send)
            return

        async def replay() -> Message:
            nonlocal first
            message, first = first, None
            return message if message is not None else await receive()

        await self._app(scope, replay, send)


def _begins(body: bytes) -> tuple[bool, str | int | None]:
    """Whether a message begins something, and its id."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return False, None  # the transport says what is wrong with it
    if not isinstance(message, dict) or not isinstance(method := message.get("method"), str):
        return isinstance(message, list), None
    request_id = message.get("id")
    known = request_id if isinstance(request_id, str | int) else None
    return method in _BEGINNINGS, known
