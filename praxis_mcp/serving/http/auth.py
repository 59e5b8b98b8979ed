"""Every HTTP request's caller, before anything else looks at the request (RFC 6750, RFC 9728, MCP authorization)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from praxis_mcp.serving.access import (
    ALL_TOOLS,
    ANYONE,
    CALL_TOOL,
    FIND_TOOL,
    READ_METRICS,
    READ_RUNS,
    SCOPE_KEY,
    TOOLS,
    BadToken,
    Caller,
    StaticTokens,
    TokenCheck,
)
from praxis_mcp.serving.http.jwt_tokens import JwtTokens, KeySet, KeysUnavailable
from praxis_mcp.serving.mcp.http import session_owner
from praxis_mcp.serving.toolsets import Toolsets
from praxis_mcp.settings.http import AuthSettings, OAuthResource

METADATA_PATH = "/.well-known/oauth-protected-resource"
OPEN_PATHS = frozenset({"/health", "/ready"})
METRICS_PATH = "/metrics"


class _Refusal(Exception):
    """What is wrong with a request's credentials. No `error` where it has none at all (RFC 6750, 3.1)."""

    def __init__(self, status: int, error: str, description: str, scope: str = ALL_TOOLS) -> None:
        super().__init__(description)
        self.status, self.error, self.description, self.scope = status, error, description, scope


Forbidden = Callable[[str, str, str], None]
"""Is called with tool, caller and ``forbidden`` where a token does not cover the tool that it calls."""


async def open_authentication(
    app: ASGIApp, settings: AuthSettings, on_forbidden: Forbidden, toolsets: Toolsets | None = None
) -> Authentication:
    """Authentication in front of an application. `toolsets`: see `Authentication`.

    Raises:
        SettingsError: the file of keys that the settings name cannot be read.
    """
    checks: list[TokenCheck] = []
    if settings.tokens:
        checks.append(StaticTokens(settings.tokens))
    if settings.oauth is not None:
        keys = KeySet(settings.oauth)
        await keys.read_file()
        checks.append(JwtTokens(settings.oauth, keys))
    return Authentication(app, checks, settings.oauth, on_forbidden, toolsets)


class Authentication:
    """ASGI middleware that gives every request its `Caller`, or refuses it: 401 without a valid token, 403 with one
    that does not reach far enough. Health and the metadata are open to all."""

    def __init__(
        self,
        app: ASGIApp,
        checks: Sequence[TokenCheck],
        oauth: OAuthResource | None,
        on_forbidden: Forbidden,
        toolsets: Toolsets | None = None,
    ) -> None:
        """`toolsets`: narrow what callers see, by what their tokens name and the server serves."""
        self._toolsets = toolsets
        self._app = app
        self._on_forbidden = on_forbidden
        self._checks = checks
        self._metadata = f', resource_metadata="{metadata_url(oauth)}"' if oauth else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: str = scope["path"]
        if not self._checks or path in OPEN_PATHS or path.startswith(METADATA_PATH):
            scope[SCOPE_KEY] = ANYONE if not self._checks else Caller("", frozenset())
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            caller = await self._caller(headers)
            self._demand(caller, path, headers)
        except _Refusal as refusal:
            await self._refuse(refusal)(scope, receive, send)
        except KeysUnavailable:
            response = JSONResponse(
                {"error": "temporarily_unavailable", "error_description": "Tokens cannot be checked at the moment"},
                status_code=503,
                headers={"Retry-After": "20"},
            )
            await response(scope, receive, send)
        else:
            scope[SCOPE_KEY] = caller
            scope["user"] = session_owner(caller)
            await self._app(scope, receive, send)

    async def _caller(self, headers: Headers) -> Caller:
        credentials = headers.getlist("authorization")
        if not credentials:
            raise _Refusal(401, "", "Authentication required")
        scheme, _, token = credentials[0].partition(" ")
        token = token.strip()
        if len(credentials) > 1 or scheme.lower() != "bearer" or not token:
            raise _Refusal(401, "invalid_request", "Send one header: Authorization: Bearer TOKEN")
        try:
            return await self.identify(token)
        except BadToken as exc:
            raise _Refusal(401, "invalid_token", str(exc)) from exc

    @property
    def is_open(self) -> bool:
        """Whether callers need no token."""
        return not self._checks

    async def identify(self, token: str) -> Caller:
        """Whose token that is.

        Raises:
            BadToken: it is not accepted.
            KeysUnavailable: whether it is accepted cannot be determined now.
        """
        for check in self._checks:
            if (found := await check.check(token)) is not None:
                view = self._toolsets.view(of_token=found.toolsets) if self._toolsets is not None else None
                return found if view is None else replace(found, view=view)
        raise BadToken("The token is not known here")

    def _demand(self, caller: Caller, path: str, headers: Headers) -> None:
        if path == METRICS_PATH:
            if READ_METRICS not in caller.scopes:
                raise _Refusal(403, "insufficient_scope", "Metrics need another scope", READ_METRICS)
            return
        if not caller.calls_tools:
            raise _Refusal(403, "insufficient_scope", "The token covers no tools")
        # From 2026-07-28 on these headers repeat what the body says, and the transport refuses a request where they do
        # not. What older clients call is known once the body is read, and refused by the handler.
        if headers.get("mcp-method") == "tools/call":
            tool = headers.get("mcp-name", "")
            if _is_plain(tool) and tool not in (FIND_TOOL, CALL_TOOL) and not caller.covers(tool):
                self._on_forbidden(tool, caller.name, "forbidden")
                raise _Refusal(403, "insufficient_scope", "The token does not cover this tool", TOOLS + tool)

    def _refuse(self, refusal: _Refusal) -> Response:
        error = f'error="{refusal.error}", error_description="{refusal.description}", ' if refusal.error else ""
        challenge = f'Bearer {error}scope="{refusal.scope}"{self._metadata}'
        body = {"error": refusal.error or "unauthorized", "error_description": refusal.description}
        return JSONResponse(body, status_code=refusal.status, headers={"WWW-Authenticate": challenge})


def _is_plain(tool: str) -> bool:
    # A name in another spelling is decoded, and refused, further in; and must not break the header that names it.
    return tool.isascii() and tool.replace("_", "").replace("-", "").replace(".", "").isalnum()


def metadata_url(oauth: OAuthResource) -> str:
    """Where the metadata of this resource is (RFC 9728, 3.1): the well-known part before the resource's own path."""
    parts = urlsplit(oauth.resource)
    return f"{parts.scheme}://{parts.netloc}{METADATA_PATH}{parts.path.rstrip('/')}"


def metadata_routes(oauth: OAuthResource) -> list[Route]:
    """Protected resource metadata (RFC 9728), where its URL says and at the root, where some clients look."""
    document = {
        "resource": oauth.resource,
        "authorization_servers": [oauth.issuer],
        "scopes_supported": [ALL_TOOLS, READ_METRICS, READ_RUNS],
        "bearer_methods_supported": ["header"],
        "resource_name": "praxis-mcp",
    }

    async def metadata(_request: Request) -> Response:
        return JSONResponse(document, headers={"Cache-Control": "public, max-age=3600"})

    paths = dict.fromkeys((urlsplit(metadata_url(oauth)).path, METADATA_PATH))
    return [Route(path, metadata, methods=["GET"]) for path in paths]
