"""The HTTP requests that are being served: bounded for all and for each caller, logged, and ended when the server shuts
down."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from praxis_mcp.serving.access import SCOPE_KEY, Caller
from praxis_mcp.serving.http.drain import Drain, refusal
from praxis_mcp.serving.mcp.dialect import opens_session
from praxis_mcp.settings.http import CONSOLE_EVENTS, CONSOLE_PATH, HttpSettings
from praxis_mcp.support.logs import logger

LAST_WORDS = 1.0
"""Seconds that ending a response may take that is broken off."""

_DISCONNECT_POLL = 0.02


def standing_at(*paths: str) -> Callable[[Scope], bool]:
    """Whether a request is a standing stream, on a server where a GET of these paths is one, and of those of the
    console each that ends in `CONSOLE_EVENTS`."""

    def stands(scope: Scope) -> bool:
        path: str = scope["path"]
        if scope["method"] == "GET":
            return path in paths or (path.startswith(f"{CONSOLE_PATH}/") and path.endswith(CONSOLE_EVENTS))
        return Headers(scope=scope).get("mcp-method") == "subscriptions/listen"

    return stands


class _Served:
    """One request: its scope to cancel, whether it is a standing stream, whether the server waits for it before it
    ends, and how far its response is."""

    def __init__(self, *, standing: bool, is_awaited: bool) -> None:
        self.scope = anyio.CancelScope()
        self.standing = standing
        self.is_awaited = is_awaited
        self.status = 0
        self.complete = False


class RequestTracker:
    """ASGI middleware that knows every request under way.

    A *standing stream* carries messages from the server for as long as the client listens, and never ends by itself:
    a ``GET`` for events, or a subscription.
    """

    def __init__(self, app: ASGIApp, drain: Drain, *, max_streams: int, stands: Callable[[Scope], bool]) -> None:
        """Args: drain: how far the end has come. stands: whether a request is a standing stream; see `standing_at`."""
        self._app = app
        self._drain = drain
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

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way that the end of the server waits for: no standing stream, and nothing that came
        after the last call that was taken."""
        return not any(served.is_awaited for served in self._served)

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
        if self._drain.refuses_at_once(scope, standing=standing):
            await refusal()(scope, receive, self._parting(send))
            return
        if standing and self.streams >= self._max_streams:
            response = PlainTextResponse(
                "Too many streams are open (http.max_streams).", status_code=503, headers={"Retry-After": "5"}
            )
            await response(scope, receive, send)
            return
        served = _Served(standing=standing, is_awaited=not standing and not self._drain.refuses)
        send = self._parting(send)

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

    def _parting(self, send: Send) -> Send:
        async def parting(message: Message) -> None:
            await send(self._drain.parting(message))

        return parting


async def _break_off(served: _Served, scope: Scope, receive: Receive, send: Send) -> None:
    with anyio.move_on_after(LAST_WORDS):
        if not served.status:
            # Not 503: balancers would send it to another server, and what it began here would be done twice.
            served.status = 500
            await PlainTextResponse("The server was shut down meanwhile.", status_code=500)(scope, receive, send)
        elif not served.complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _log(scope: Scope, served: _Served, seconds: float) -> None:
    # The query may hold a session's id, and headers hold tokens: neither is logged.
    caller = getattr(scope.get(SCOPE_KEY), "name", "")
    path = scope["path"][:100]
    logger.debug("{} {} {} in {:.1f} ms {}", scope["method"], path, served.status, seconds * 1000, caller)


SHARE = 4
"""A caller holds one part in so many of each bound of the whole server."""
FLOOR = 8
"""A caller holds so many at least, or as many as there are: one client alone keeps several open at once."""
SESSION_ID = b"mcp-session-id"


@dataclass(slots=True)
class _Session:
    caller: str
    requests: int
    rests_since: float


class CallerShares:
    """ASGI middleware, behind authentication, that answers 429 to a caller who holds a quarter of
    `http.max_connections` in requests that end, of `http.max_streams` in standing streams, or of `http.max_sessions` in
    sessions of older revisions (or `FLOOR` of them, where that is more): a caller with any token at all could keep all
    others out otherwise. A session of their own they can always end.

    Everyone who needs no credentials shares the bounds of the whole server only.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: HttpSettings,
        *,
        stands: Callable[[Scope], bool],
        opens_sessions: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: stands: whether a request is a standing stream. opens_sessions: path where sessions are opened."""
        self._app = app
        self._idle = settings.session_idle_timeout
        self._most = {
            "requests": ("max_connections", _share(settings.max_connections)),
            "streams": ("max_streams", _share(settings.max_streams)),
            "sessions": ("max_sessions", _share(settings.max_sessions)),
        }
        self._stands = stands
        self._path = opens_sessions
        self._clock = clock
        self._held: Counter[tuple[str, str]] = Counter()
        self._sessions: dict[str, _Session] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        caller: Caller | None = scope.get(SCOPE_KEY)
        if caller is None or not caller.name:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        session = self._sessions.get(headers.get("mcp-session-id", ""))
        if session is not None and session.caller != caller.name:
            session = None  # the transport answers that there is none
        opens = session is None and self._may_open(scope, headers)
        # A standing stream does not count as a request: it would keep its own client from asking anything.
        needed = ["streams" if self._stands(scope) else "requests", *(["sessions"] if opens else [])]
        ends = session is not None and scope["method"] == "DELETE"
        for kind in needed if not ends else ():
            setting, most = self._most[kind]
            if self._held[kind, caller.name] + (self._open(caller.name) if kind == "sessions" else 0) >= most:
                text = f"You hold {most} {kind}, as many as one caller may; it goes by http.{setting}."
                response = PlainTextResponse(text, status_code=429, headers={"Retry-After": "5"})
                await response(scope, receive, send)
                return
        held = Counter((kind, caller.name) for kind in needed)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answered(scope, headers, message, caller.name if opens else None, session)
                if opens:  # it is counted as a session from here on
                    self._release(Counter({("sessions", caller.name): held.pop(("sessions", caller.name), 0)}))
            await send(message)

        self._held.update(held)
        if session is not None:
            session.requests += 1
        try:
            await self._app(scope, receive, watched)
        finally:
            self._release(held)
            if session is not None:
                session.requests -= 1
                session.rests_since = self._clock()

    def _may_open(self, scope: Scope, headers: Headers) -> bool:
        revision = headers.get("mcp-protocol-version")
        # With the id of a session that has ended, an initialize opens one as well (`FreshSessions`).
        may = scope["method"] == "POST" or "mcp-session-id" not in headers
        return scope["path"] == self._path and opens_session(revision) and may

    def _answered(
        self, scope: Scope, headers: Headers, start: Message, opener: str | None, session: _Session | None
    ) -> None:
        status: int = start["status"]
        opened = Headers(raw=list(start.get("headers", ()))).get("mcp-session-id")
        if opener is not None and opened and status < 400:
            self._sessions[opened] = _Session(opener, 0, self._clock())
        if session is not None and (status == 404 or (scope["method"] == "DELETE" and status < 300)):
            self._sessions.pop(headers["mcp-session-id"], None)

    def _open(self, caller: str) -> int:
        """Sessions that the caller has open. One that nothing was asked in for long has ended by itself."""
        ended_before = self._clock() - self._idle
        self._sessions = {
            key: known for key, known in self._sessions.items() if known.requests or known.rests_since > ended_before
        }
        return sum(known.caller == caller for known in self._sessions.values())

    def _release(self, held: Counter[tuple[str, str]]) -> None:
        self._held.subtract(held)
        for key in held:
            if self._held[key] <= 0:
                del self._held[key]


def _share(whole: int) -> int:
    return min(whole, max(FLOOR, whole // SHARE))
