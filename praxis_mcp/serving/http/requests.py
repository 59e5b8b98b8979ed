"""The HTTP requests that are being served: bounded, logged, and ended when the server shuts down."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from praxis_mcp.serving.access import SCOPE_KEY
from praxis_mcp.support.logs import logger

LAST_WORDS = 1.0
"""Seconds that ending a response may take that is broken off."""

_DISCONNECT_POLL = 0.02


def standing_at(*paths: str) -> Callable[[Scope], bool]:
    """Whether a request is a standing stream, on a server where a GET of these paths is one."""

    def stands(scope: Scope) -> bool:
        if scope["method"] == "GET":
            return scope["path"] in paths
        return Headers(scope=scope).get("mcp-method") == "subscriptions/listen"

    return stands


class _Served:
    """One request: its scope to cancel, whether it is a standing stream, and how far its response is."""

    def __init__(self, *, standing: bool) -> None:
        self.scope = anyio.CancelScope()
        self.standing = standing
        self.status = 0
        self.complete = False


class RequestTracker:
    """ASGI middleware that knows every request under way.

    A *standing stream* carries messages from the server for as long as the client listens, and never ends by itself:
    a ``GET`` for events, or a subscription.
    """

    def __init__(self, app: ASGIApp, *, max_streams: int, stands: Callable[[Scope], bool]) -> None:
        """Args: stands: whether a request is a standing stream; see `standing_at`."""
        self._app = app
        self._max_streams = max_streams
        self._stands = stands
        self._served: set[_Served] = set()

    @property
    def streams(self) -> int:
        """Standing streams that are open."""
        return sum(1 for served in self._served if served.standing)

    @property
    def exchanges(self) -> int:
        """Requests under way that end by themselves."""
        return len(self._served) - self.streams

    def cancel_streams(self) -> None:
        """End every standing stream."""
        for served in self._served:
            if served.standing:
                served.scope.cancel()

    def cancel_all(self) -> None:
        """Break off every request."""
        for served in self._served:
            served.scope.cancel()

    async def ended(self) -> None:
        """Wait until no request is under way."""
        while self._served:  # noqa: ASYNC110 - asked at shutdown only
            await anyio.sleep(_DISCONNECT_POLL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        standing = self._stands(scope)
        if standing and self.streams >= self._max_streams:
            response = PlainTextResponse(
                "Too many streams are open (http.max_streams).", status_code=503, headers={"Retry-After": "5"}
            )
            await response(scope, receive, send)
            return
        served = _Served(standing=standing)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                served.status = message["status"]
            await send(message)
            served.complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        began = time.perf_counter()
        self._served.add(served)
        try:
            with served.scope:
                await self._app(scope, receive, watched)
            if served.scope.cancelled_caught:
                await _break_off(served, scope, receive, send)
        finally:
            self._served.discard(served)
            _log(scope, served, time.perf_counter() - began)


async def _break_off(served: _Served, scope: Scope, receive: Receive, send: Send) -> None:
    with anyio.move_on_after(LAST_WORDS):
        if not served.status:
            served.status = 503
            await PlainTextResponse("The server is shutting down.", status_code=503)(scope, receive, send)
        elif not served.complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _log(scope: Scope, served: _Served, seconds: float) -> None:
    # The query may hold a session's id, and headers hold tokens: neither is logged.
    caller = getattr(scope.get(SCOPE_KEY), "name", "")
    path = scope["path"][:100]
    logger.debug("{} {} {} in {:.1f} ms {}", scope["method"], path, served.status, seconds * 1000, caller)
