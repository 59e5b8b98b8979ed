"""The SDK's HTTP transports as ASGI applications over a server, and how they know whose a session is."""

from __future__ import annotations

from collections.abc import Sequence

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.sse import SseServerTransport
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from praxis_mcp.serving.access import Caller
from praxis_mcp.serving.mcp.server import PraxisServer
from praxis_mcp.settings.http import HttpSettings


def session_owner(caller: Caller) -> AuthenticatedUser:
    """The user that the SDK's transports bind a session to (``scope["user"]``): another one cannot use it."""
    return AuthenticatedUser(AccessToken(token="", client_id=caller.client, subject=caller.name, scopes=[]))


class HttpTransports:
    """The transports of one server.

    Args:
        server: what answers.
        settings: bounds of bodies and sessions.
        hosts, origins: the values of Host and Origin that are accepted; the SDK would check nothing without them.
    """

    def __init__(
        self, server: PraxisServer, settings: HttpSettings, hosts: Sequence[str], origins: Sequence[str]
    ) -> None:
        self._server = server
        self._settings = settings
        self._security = TransportSecuritySettings(allowed_hosts=list(hosts), allowed_origins=list(origins))

    def streamable(self, path: str, routes: Sequence[BaseRoute]) -> Starlette:
        """An application with Streamable HTTP, of every protocol revision, at `path`, and these routes."""
        return self._server.mcp.streamable_http_app(
            streamable_http_path=path,
            # With True, a client of 2026-07-28 that leaves would not cancel its call, and would get no progress.
            json_response=False,
            max_request_body_size=self._settings.max_body,
            session_idle_timeout=self._settings.session_idle_timeout,
            max_sessions=self._settings.max_sessions,
            transport_security=self._security,
            custom_starlette_routes=list(routes),  # pyright: ignore[reportArgumentType] - it takes any route
        )

    def sse(self, path: str, messages: str) -> list[Route | Mount]:
        """Routes of HTTP+SSE (specification 2024-11-05): events at `path`, and what clients send at `messages`."""
        transport = SseServerTransport(messages, self._security, self._settings.max_body)
        return [
            Route(path, _SseEndpoint(self._server, transport), methods=["GET"]),
            Mount(messages, transport.handle_post_message),
        ]


class _SseEndpoint:
    """``GET``: one client's events, until it leaves."""

    def __init__(self, server: PraxisServer, transport: SseServerTransport) -> None:
        self._server = server
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await Response(media_type="text/event-stream")(scope, receive, send)
            return
        async with self._transport.connect_sse(scope, receive, send) as (incoming, outgoing):
            await self._server.serve(incoming, outgoing)
