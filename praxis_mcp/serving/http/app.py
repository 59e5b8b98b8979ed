"""One ASGI application for MCP over HTTP: Streamable HTTP of every revision on ``/mcp``, HTTP+SSE on ``/sse`` for the
oldest clients, and ``/health``, ``/ready`` and ``/metrics`` for operators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.http.auth import METRICS_PATH, Authentication, metadata_routes, open_authentication
from praxis_mcp.serving.http.drain import Drain, NewCallsRefused
from praxis_mcp.serving.http.metrics import CONTENT_TYPE, render
from praxis_mcp.serving.http.middleware import (
    LOOPBACK_ORIGIN,
    AllowedNames,
    BodyLimit,
    FreshSessions,
    Guard,
    OneLineEvents,
)
from praxis_mcp.serving.http.requests import CallerShares, RequestTracker, standing_at
from praxis_mcp.serving.http.toolset_paths import KnownToolsets, ToolsetPaths
from praxis_mcp.serving.mcp.http import HttpTransports
from praxis_mcp.serving.mcp.server import PraxisServer

MCP_PATH = "/mcp"
SSE_PATH = "/sse"
MESSAGES_PATH = "/messages/"
_IDLE_POLL = 0.02


class HttpApplication:
    """What the web server runs.

    Attributes:
        asgi: the application, whole; it knows the requests under way as well.
        drain: how far its end has come.
        entry: `asgi`, behind what reads toolsets off the addresses: what the web server is given.
        open_console: says where the console is, if there is one; see `open_application`.
    """

    def __init__(
        self, asgi: RequestTracker, toolbox: Toolbox, drain: Drain, open_console: Callable[[], None] = lambda: None
    ) -> None:
        self.asgi = asgi
        self.entry: ASGIApp = asgi
        self.drain = drain
        self.open_console = open_console
        self._toolbox = toolbox

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way and no response is being written, standing streams aside."""
        return self.asgi.is_idle and not self._toolbox.runner.tally.under_way

    async def idle(self) -> None:
        """Wait until `is_idle`."""
        while not self.is_idle:  # noqa: ASYNC110 - asked at shutdown only
            await anyio.sleep(_IDLE_POLL)


@asynccontextmanager
async def open_application(
    server: PraxisServer,
    toolbox: Toolbox,
    *,
    streamable: bool,
    sse: bool,
    on_console_link: Callable[[str], None] = lambda path: None,
) -> AsyncIterator[HttpApplication]:
    """The application over a server; sessions live inside this context, and their calls end with it.

    Args:
        server: what answers.
        toolbox: what it serves.
        streamable: whether ``/mcp`` is there.
        sse: whether ``/sse`` is there.
        on_console_link: is called with the path at which the console is to be opened, if there is one; and again with
            another one where that works only once.

    Raises:
        SettingsError: the file of keys that the settings name cannot be read, or what the console needs is missing.
    """
    settings = toolbox.settings.http
    names = AllowedNames.of(settings)
    drain = Drain()
    release = version("praxis-mcp")

    async def respond_with_metrics(_request: Request) -> Response:
        connections = {
            "legacy_session": server.legacy_sessions,
            "stream": tracker.streams,
            "request": tracker.exchanges,
        }
        text = render(toolbox, connections, release)
        return PlainTextResponse(text, media_type=CONTENT_TYPE)

    routes = [*_health_routes(toolbox, drain), Route(METRICS_PATH, respond_with_metrics)]
    if settings.auth.oauth is not None:
        routes += metadata_routes(settings.auth.oauth)
    transports = HttpTransports(server, settings, *names.spelled_out())
    toolsets = tuple(toolbox.settings.toolsets)
    if sse:
        for name in toolsets:  # before the others, whose paths theirs begin with
            routes += transports.sse(f"{SSE_PATH}/{name}", f"{MESSAGES_PATH}{name}/")
        routes += transports.sse(SSE_PATH, MESSAGES_PATH)
    inner = transports.streamable(MCP_PATH, routes) if streamable else Starlette(routes=routes)
    stands = standing_at(MCP_PATH, SSE_PATH, *(f"{SSE_PATH}/{name}" for name in toolsets))
    shared = CallerShares(
        BodyLimit(NewCallsRefused(FreshSessions(OneLineEvents(inner), MCP_PATH), drain), settings),
        settings,
        stands=stands,
        opens_sessions=MCP_PATH,
    )
    known: ASGIApp = KnownToolsets(shared, server.toolsets) if toolsets else shared
    authenticated = await open_authentication(known, settings.auth, toolbox.runner.tally.refuse, server.toolsets)
    served: ASGIApp = _for_browsers(authenticated, names)
    console = None
    if settings.console.enabled:
        from praxis_mcp.serving.http.console import WithConsole

        # A server without MCP is somebody's own look at what is theirs.
        is_owners = authenticated.is_open or not (streamable or sse)
        console = WithConsole(served, toolbox, authenticated, stands, owner_links=is_owners, on_link=on_console_link)
        served = console
    tracker = RequestTracker(
        Guard(served, names),
        drain,
        max_streams=settings.max_streams,
        stands=stands,
    )
    async with inner.router.lifespan_context(inner):
        application = HttpApplication(tracker, toolbox, drain, *([console.announce] if console is not None else []))
        if toolsets:
            # Messages over SSE go to an application of each toolset.
            bases = {MCP_PATH: MCP_PATH, SSE_PATH: None, MESSAGES_PATH.rstrip("/"): None}
            application.entry = ToolsetPaths(tracker, bases)
        yield application


def _for_browsers(app: Authentication, names: AllowedNames) -> CORSMiddleware:
    return CORSMiddleware(
        app,
        allow_origins=sorted(names.origins),
        allow_origin_regex=LOOPBACK_ORIGIN,
        allow_methods=("GET", "POST", "DELETE"),
        # Clients mirror arguments in headers of any name (Mcp-Param-…).
        allow_headers=("*",),
        expose_headers=("Mcp-Session-Id", "MCP-Protocol-Version", "WWW-Authenticate", "Retry-After"),
        max_age=600,
    )


def _health_routes(toolbox: Toolbox, drain: Drain) -> list[Route | Mount]:
    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_request: Request) -> Response:
        if drain.is_leaving:
            return JSONResponse({"status": "shutting down"}, status_code=503)
        if not toolbox.is_loaded:
            return JSONResponse({"status": "the catalog is being scanned"}, status_code=503)
        if not toolbox.upstreams.all_attempted:
            return JSONResponse({"status": "upstreams are being asked for their tools"}, status_code=503)
        return JSONResponse({"status": "ready"})

    return [Route("/health", health), Route("/ready", ready)]
