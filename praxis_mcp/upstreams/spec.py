"""How another MCP server is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from praxis_mcp.settings.sections import Transport

ProgressListener = Callable[[float, float | None, str | None], None]
"""Is called with the progress, total and message of a call. Must not block."""

UPSTREAM_CONNECT_TIMEOUT = 30.0
"""Seconds to start a server, or reach it, and agree on a protocol revision."""
IDLE_TIMEOUT = 600.0
"""Seconds without a call after which a connection is closed; the next call opens it again."""


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """Credentials for the OAuth 2.1 client credentials grant (RFC 6749, section 4.4).

    Attributes:
        client_id: the client.
        client_secret: its secret, resolved.
        issuer: identifier of the authorization server that they belong to; tokens are asked of no other.
        scope: scopes to ask for, separated by spaces.
    """

    client_id: str
    client_secret: str = field(repr=False)
    issuer: str
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """One MCP server to be called, secrets resolved; the key under which its connection is shared.

    Attributes:
        name: how errors and logs name it.
        address: its URL, or the words of the command that starts it.
        transport: see `Transport`.
        headers: HTTP headers of every request.
        env: variables for a command, in addition to the few that every program needs (PATH, HOME …).
        directory: where a command is started.
        oauth: see `OAuthClient`.
        hidden: values among those above that are secrets.
        connect_timeout: see `UPSTREAM_CONNECT_TIMEOUT`.
        idle_timeout: see `IDLE_TIMEOUT`; None never closes.
    """

    name: str
    address: str | tuple[str, ...]
    transport: Transport = "auto"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    directory: Path | None = None
    oauth: OAuthClient | None = None
    hidden: tuple[str, ...] = field(default=(), repr=False)
    connect_timeout: float = UPSTREAM_CONNECT_TIMEOUT
    idle_timeout: float | None = IDLE_TIMEOUT

    @property
    def kind(self) -> Literal["http", "sse", "stdio"]:
        """The transport, decided."""
        if self.transport != "auto":
            return self.transport
        if isinstance(self.address, tuple):
            return "stdio"
        return "sse" if urlsplit(self.address).path.rstrip("/").endswith("/sse") else "http"

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the command; empty for a URL."""
        if self.kind != "stdio":
            return ()
        return self.address if isinstance(self.address, tuple) else (self.address,)

    @property
    def place(self) -> str:
        """Where it is, for people: a URL without user, query and fragment, or the first word of a command, because
        these may hold secrets."""
        if self.words:
            return self.words[0]
        parts = urlsplit(str(self.address))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that nothing which comes back may show."""
        tokens = (value.removeprefix("Bearer ") for name, value in self.headers if name.lower() == "authorization")
        return (*self.hidden, *tokens, *([self.oauth.client_secret] if self.oauth else ()))
