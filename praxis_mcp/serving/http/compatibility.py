"""Middleware for what clients do in practice and the SDK's transports do not expect."""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from praxis_mcp.serving.http.shares import SESSION_ID
from praxis_mcp.support.text import escape_line_ends


class FreshSessions:
    """ASGI middleware, behind `BodyLimit`, that takes ``Mcp-Session-Id`` from a POST which holds an ``initialize``.

    Clients that were connected before the server restarted, or whose session has ended, start again and still send the
    old id. The transport would answer 404 to it, which is what made them start again, and some never come back.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        """Args: path: where sessions are opened."""
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        names_session = any(name == SESSION_ID for name, _ in scope["headers"])
        if not names_session or scope["method"] != "POST" or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return
        first = await receive()

        async def replay() -> Message:
            nonlocal first
            message, first = first, None
            return message if message is not None else await receive()

        if _initializes(first.get("body", b"")):
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != SESSION_ID]}
        await self._app(scope, replay, send)


def _initializes(body: bytes) -> bool:
    if b'"initialize"' not in body:
        return False
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return False  # the transport says so
    return isinstance(message, dict) and message.get("method") == "initialize"


class OneLineEvents:
    """ASGI middleware that keeps each event of a ``text/event-stream`` on one line (see `escape_line_ends`). Their
    standard ends a line at CR and LF only, but clients read them with readers of lines that know more ends. Each piece
    holds whole events."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_events = False

        async def escaped(message: Message) -> None:
            nonlocal is_events
            if message["type"] == "http.response.start":
                is_events = any(
                    name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in message.get("headers", ())
                )
            elif is_events and message["type"] == "http.response.body" and message.get("body"):
                message = {**message, "body": escape_line_ends(message["body"])}
            await send(message)

        await self._app(scope, receive, escaped)
