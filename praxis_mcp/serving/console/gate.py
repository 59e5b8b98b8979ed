"""What each request to the console passes first: it comes from a page of the console itself, its browser has a session,
and its answer tells the browser to load nothing from elsewhere and to run no script but ours."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from praxis_mcp.serving.access import SCOPE_KEY, Caller
from praxis_mcp.serving.console.sessions import Session, Sessions
from praxis_mcp.settings.http import CONSOLE_PATH

LOGIN_PATH = CONSOLE_PATH + "/login"
STATIC_PATH = CONSOLE_PATH + "/static/"
RUNS_PATH = CONSOLE_PATH + "/runs"
SESSION_KEY = "praxis.console.session"
"""Where a request's ASGI scope holds its `Session`."""
MAX_FIELDS = 1000
"""Fields of one form."""

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""Content Security Policy (https://www.w3.org/TR/CSP3/) of every page."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # With "no-referrer", browsers send "Origin: null" with our own forms (Fetch, "append a request Origin header").
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Gate:
    """ASGI middleware of the console.

    Args:
        known: serves requests that have a session.
        login: serves the others: the login, and what its page loads.
        sessions: who has one.
    """

    def __init__(self, known: ASGIApp, login: ASGIApp, sessions: Sessions) -> None:
        self._known = known
        self._login = login
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {"Content-Security-Policy": CONTENT_POLICY, **_HEADERS}.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._serve(scope, receive, protected)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if not is_from_here(scope["method"], headers):
            response: Response = PlainTextResponse("The console answers its own pages only.", status_code=403)
            await response(scope, receive, send)
            return
        scope[SCOPE_KEY] = Caller("", frozenset())
        session_id = cookie_parser(headers.get("cookie", "")).get(cookie_name(headers), "")
        session = await self._sessions.find(session_id) if session_id else None
        path: str = scope["path"]
        if session is not None:
            scope[SESSION_KEY] = session
            scope[SCOPE_KEY] = session.viewer.caller
        if path == LOGIN_PATH or path.startswith(STATIC_PATH):
            await self._login(scope, receive, send)
        elif session is not None:
            await self._known(scope, receive, send)
        elif scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            query = urlencode({"next": path}) if path != CONSOLE_PATH else ""
            response = RedirectResponse(f"{LOGIN_PATH}?{query}" if query else LOGIN_PATH, status_code=303)
            await response(scope, receive, send)
        else:
            response = PlainTextResponse("Log in to the console first.", status_code=401)
            await response(scope, receive, send)


def is_from_here(method: str, headers: Headers) -> bool:
    """Whether a browser says that a request comes from a page of this very server, or from its user: other pages may
    link to the console, but not load, read or change anything of it.

    Cookies know no ports, so that pages of another server on the same machine count as the same site; their
    origin tells them apart.
    """
    origins = headers.getlist("origin")
    host = headers.get("host", "")
    if any(urlsplit(origin).netloc.lower() != host.lower() for origin in origins):
        return False
    site = headers.get("sec-fetch-site", "none")
    if site in ("none", "same-origin"):
        return True
    return method == "GET" and headers.get("sec-fetch-mode") == "navigate"


def cookie_name(headers: Headers) -> str:
    """The session's cookie; cookies know no ports, and there may be another console on the same machine."""
    _, _, port = headers.get("host", "").rpartition(":")
    return f"praxis-console-{port}" if port.isdecimal() else "praxis-console"


def set_session(response: Response, request: Request, session_id: str) -> None:
    """Have the browser keep a session's id, out of reach of scripts and of other sites; an empty one ends it."""
    headers = request.headers
    # A link that is opened has no Origin; a proxy says so. A client that sends a false one harms its own cookie only.
    proxied = headers.get("x-forwarded-proto", "").partition(",")[0].strip() == "https"
    is_encrypted = request.url.scheme == "https" or headers.get("origin", "").startswith("https:") or proxied
    response.set_cookie(
        cookie_name(request.headers),
        session_id,
        max_age=None if session_id else 0,
        path=CONSOLE_PATH,
        secure=is_encrypted,
        httponly=True,
        samesite="strict",
    )


def session_of(request: Request) -> Session:
    """The session of a request that the gate has let in."""
    session: Session = request.scope[SESSION_KEY]
    return session


class BadForm(Exception):
    """A form that is too large, or that was not made for this session."""


async def read_fields(request: Request, most: int) -> dict[str, list[str]]:
    """The fields of a form, each with its values.

    Args:
        request: a POST.
        most: bytes.

    Raises:
        BadForm: it has more.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise BadForm("The form is too large.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as exc:
        raise BadForm("This is not a form.") from exc
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


async def read_form(request: Request, most: int) -> dict[str, list[str]]:
    """As `read_fields`, of a form that this session's page had.

    Raises:
        BadForm: it had not.
    """
    fields = await read_fields(request, most)
    if not session_of(request).is_form_of(fields.pop("csrf", [""])[0]):
        raise BadForm("The page that this was sent from is out of date. Load it again.")
    return fields
