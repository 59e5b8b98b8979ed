"""What goes on now: the runs that have not ended, and their output as it comes, by server-sent events
(https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from praxis_mcp.errors import RecordsUnavailable, RunNotFoundError
from praxis_mcp.execution.outcomes import RUNNING
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.serving.console.gate import CONSOLE_PATH, RUNS_PATH, session_of
from praxis_mcp.serving.console.reader import RunReader
from praxis_mcp.serving.console.sessions import Session, Sessions, Viewer
from praxis_mcp.serving.console.text import LiveText
from praxis_mcp.serving.console.ui import Ui
from praxis_mcp.settings.http import CONSOLE_EVENTS

LIVE_PATH = CONSOLE_PATH + "/live"
MOST_LIVE = 100
"""Runs that the page of those that go on shows."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the store: what a run puts out is written there as often."""
MAX_STREAMS = 32
"""Streams of the console that are open at once."""
MAX_OWN_STREAMS = 8
"""Those of one caller: all others could see nothing live otherwise."""
STREAM_LIFETIME = 600.0
"""Seconds after which a stream ends; a browser that is still there opens it again."""
_SIGN_OF_LIFE = 20
"""Looks without anything to say after which a comment is sent: what is between may end a silent connection."""


class LivePages:
    """The routes about runs that go on.

    Args:
        reader: the store.
        sessions: know whether who looks may still do so.
        ui: makes pages.
    """

    def __init__(self, reader: RunReader, sessions: Sessions, ui: Ui) -> None:
        self._reader = reader
        self._sessions = sessions
        self._ui = ui
        self._open: Counter[str] = Counter()

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route(LIVE_PATH, self.show, methods=["GET"]),
            Route(LIVE_PATH + CONSOLE_EVENTS, self.changes, methods=["GET"]),
            Route(RUNS_PATH + "/{run_id:str}" + CONSOLE_EVENTS, self.output, methods=["GET"]),
        ]

    async def show(self, request: Request) -> Response:
        """The runs that go on."""
        runs = await self._reader.runs(session_of(request).viewer, Filters(outcome=RUNNING), MOST_LIVE)
        return self._ui.page(request, "live.html", runs=runs or [], is_recorded=runs is not None)

    async def changes(self, request: Request) -> Response:
        """An event whenever other runs go on than before."""
        session = session_of(request)
        return self._stream(session, self._changes(session.viewer))

    async def output(self, request: Request) -> Response:
        """What a run puts out, and an event when it has ended."""
        session, run_id = session_of(request), request.path_params["run_id"]
        await self._reader.details(session.viewer, run_id)
        begun = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        after = int(begun) if begun.isascii() and begun.isdigit() and len(begun) < 12 else 0
        return self._stream(session, self._output(session.viewer, run_id, after))

    def _stream(self, session: Session, events: AsyncGenerator[str, None]) -> Response:
        name = session.viewer.caller.name
        if self._open.total() >= MAX_STREAMS or (name and self._open[name] >= MAX_OWN_STREAMS):
            return PlainTextResponse("Too many streams are open.", status_code=503, headers={"Retry-After": "5"})
        return _Events(self._bounded(session, events), partial(self._count, name))

    def _count(self, name: str, number: int) -> None:
        self._open[name] += number
        if not self._open[name]:
            del self._open[name]

    async def _bounded(self, session: Session, events: AsyncGenerator[str, None]) -> AsyncIterator[str]:
        try:
            yield ": open\n\n"
            ends = anyio.current_time() + STREAM_LIFETIME
            quiet = 0
            async with aclosing(events):
                async for event in events:
                    if not await self._sessions.stands(session):
                        return
                    quiet = 0 if event else quiet + 1
                    if event or quiet % _SIGN_OF_LIFE == 0:
                        yield event or ": alive\n\n"
                    if anyio.current_time() > ends:
                        return
        except (RunNotFoundError, RecordsUnavailable):
            yield _event("end", {})

    async def _changes(self, viewer: Viewer) -> AsyncGenerator[str, None]:
        known: list[str] | None = None
        while True:
            runs = await self._reader.runs(viewer, Filters(outcome=RUNNING), MOST_LIVE) or []
            now = [run.id for run in runs]
            yield _event("changed", {}) if known is not None and now != known else ""
            known = now
            await anyio.sleep(LOOK_EVERY)

    async def _output(self, viewer: Viewer, run_id: str, after: int) -> AsyncGenerator[str, None]:
        texts = {"stdout": LiveText(), "stderr": LiveText()}
        while True:
            details = await self._reader.details(viewer, run_id, after)
            if details.run.ended is not None:
                yield _event("end", {})
                return
            for number, stream, data in details.live:
                after = number + 1
                yield _event("output", {"stream": stream, "text": texts[stream].add(data)}, after)
            if not details.live:
                yield ""
            await anyio.sleep(LOOK_EVERY)


class _Events(StreamingResponse):
    """A stream that is counted from the moment it is answered: counted with its first event, hundreds that are asked
    for at once would all be let in."""

    def __init__(self, events: AsyncIterator[str], count: Callable[[int], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # its answer would go on unseen
            await Response(headers=dict(self.headers))(scope, receive, send)
            return
        self._count(1)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._count(-1)


def _event(name: str, data: dict[str, Any], number: int | None = None) -> str:
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n"
