"""What every HTTP request must be like, whatever it is for (its Host, its Origin, and the size of its body); and what
clients do in practice that the SDK's transports do not expect."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from praxis_mcp.serving.http.requests import SESSION_ID
from praxis_mcp.settings.http import LOOPBACK, HttpSettings
from praxis_mcp.support.text import escape_line_ends

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
LOOPBACK_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


@dataclass(frozen=True, slots=True)
class AllowedNames:
    """The names under which clients may reach this server, and the pages whose scripts may: without them, any web
    page could call a server on the reader's own machine by having its own name resolve there (DNS rebinding).

    Attributes:
        hosts: names, each with its port where only that one will do.
        origins: origins of web pages.
    """

    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, settings: HttpSettings) -> AllowedNames:
        """What the settings allow, and the loopback."""
        hosts = {bracketed(name) for name in LOOPBACK} | {host.lower() for host in settings.allowed_hosts}
        if settings.host not in _WILDCARDS:
            hosts.add(bracketed(settings.host.lower()))
        if settings.auth.oauth is not None:
            hosts.add(urlsplit(settings.auth.oauth.resource).netloc.lower())
        return cls(frozenset(hosts), frozenset(origin.lower() for origin in settings.allowed_origins))

    def has_host(self, host: str) -> bool:
        """Whether a Host header names this server."""
        host = host.lower()
        return host in self.hosts or _without_port(host) in self.hosts

    def has_origin(self, origin: str) -> bool:
        """Whether pages of that origin may call."""
        origin = origin.lower()
        if origin in self.origins:
            return True
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and _without_port(rest) in {bracketed(name) for name in LOOPBACK}

    def spelled_out(self) -> tuple[list[str], list[str]]:
        """Hosts and origins one by one, as the SDK's transports take them; ``:*`` is any port."""
        loopback = [f"{scheme}://{bracketed(name)}" for scheme in ("http", "https") for name in LOOPBACK]
        return _with_any_port(self.hosts), [*self.origins, *_with_any_port(loopback)]


class Guard:
    """ASGI middleware that answers 421 to a foreign Host, and 403 to a foreign Origin."""

    def __init__(self, app: ASGIApp, names: AllowedNames) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope)
        # Of two such headers, a later reader may take the other one.
        origins = headers.getlist("origin")
        if not self._names.has_host(headers.get("host", "")):
            response = PlainTextResponse("This server has another name (http.allowed_hosts).", status_code=421)
            await response(scope, receive, send)
        elif not all(map(self._names.has_origin, origins)):
            response = PlainTextResponse("Pages of this origin may not call (http.allowed_origins).", status_code=403)
            await response(scope, receive, send)
        else:
            # The names of hosts have no case (RFC 9110, 4.2.3), but the SDK's transports compare them letter by letter.
            scope["headers"] = [(name, _folded(name, value)) for name, value in scope["headers"]]
            await self._app(scope, receive, send)


def _folded(name: bytes, value: bytes) -> bytes:
    return value.lower() if name in (b"host", b"origin") else value


class BodyLimit:
    """ASGI middleware that takes a whole body before the application sees the request: 413 to one that is too large,
    408 to one that does not come in time."""

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._most = settings.max_body
        self._timeout = settings.read_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        declared = Headers(scope=scope).get("content-length", "")
        body = bytearray()
        messages: deque[Message] = deque()
        too_large = declared.isdecimal() and int(declared) > self._most
        with anyio.move_on_after(self._timeout) as reading:
            while not too_large:
                message = await receive()
                if message["type"] != "http.request":
                    messages.append(message)
                    break
                body += message.get("body", b"")
                too_large = len(body) > self._most
                if not message.get("more_body", False):
                    break
        if too_large:
            response = PlainTextResponse(f"A request may have {self._most} bytes.", status_code=413)
            await response(scope, receive, send)
        elif reading.cancelled_caught:
            response = PlainTextResponse(
                f"The body did not come within {self._timeout:g} s.", status_code=408, headers={"Connection": "close"}
            )
            await response(scope, receive, send)
        else:
            messages.appendleft({"type": "http.request", "body": bytes(body), "more_body": False})

            async def replay() -> Message:
                return messages.popleft() if messages else await receive()

            await self._app(scope, replay, send)


def bracketed(host: str) -> str:
    """A host as it stands in URLs: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _with_any_port(names: Iterable[str]) -> list[str]:
    return [form for name in names for form in (name, f"{name}:*")]


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
