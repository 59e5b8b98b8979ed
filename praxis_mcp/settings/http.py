"""Settings of serving over the network: where to listen, who may call, and what one process takes on."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_validator

from praxis_mcp.settings.base import Section
from praxis_mcp.settings.toolsets import ToolsetName

LOOPBACK = ("localhost", "127.0.0.1", "::1")
CONSOLE_PATH = "/console"
"""Below it are the pages for people."""
CONSOLE_EVENTS = "/events"
"""How the paths of the console's standing streams end."""

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a private key. Never ``none``; never HS…, where anyone who can check a token can make one."""


def _secure_url(value: str) -> str:
    parts = urlsplit(value)
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not secure or not parts.netloc or parts.fragment:
        raise ValueError("must be an https:// URL without a fragment (http:// only for this machine itself)")
    return value


def _in_brackets(value: object) -> object:
    # As Kubernetes has the address of a Pod; a Host header has it in brackets (RFC 3986, 3.2.2).
    with suppress(ValueError):
        return f"[{ipaddress.IPv6Address(value)}]" if isinstance(value, str) else value
    return value


SecureUrl = Annotated[str, AfterValidator(_secure_url)]
Scope = Annotated[str, Field(pattern=r"^(tools:[A-Za-z0-9_.*?\[\]!-]{1,128}|metrics:read|runs:read)$")]
Host = Annotated[str, BeforeValidator(_in_brackets), Field(pattern=r"^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?$")]
Origin = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?$")]


class StaticToken(Section):
    """One bearer token, as ``praxis-mcp token new`` makes them.

    Attributes:
        sha256: SHA-256 of the token, in hexadecimal. Tokens hold 256 random bits, so that a plain hash cannot be
            reversed.
        scopes: what its bearer may do: ``tools:GLOB`` sees and calls the tools whose names match, ``metrics:read``
            reads ``/metrics``, ``runs:read`` sees the runs of every caller in the console.
        toolsets: the toolsets whose tools its bearer sees and calls, as far as the scopes cover them; none are every
            tool. A JWT says the same by scopes ``toolset:NAME``.
        expires: when it ends, with a time zone; None is never.
    """

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = ("tools:*",)
    toolsets: tuple[ToolsetName, ...] = ()
    expires: AwareDatetime | None = None


class OAuthResource(Section):
    """This server as an OAuth 2.1 resource server: it takes JWTs that `issuer` gave out for `resource`.

    Attributes:
        issuer: the authorization server's identifier, exactly as tokens have it in ``iss``.
        resource: this server's own public URL, such as ``https://tools.example.com/mcp``, as RFC 9728 metadata
            names it and clients ask tokens for it (RFC 8707).
        audience: what ``aud`` may be; empty is `resource`.
        jwks_url, jwks_file: where the issuer's public keys are; exactly one. A file is read again when it changes.
        algorithms: the signatures that are taken.
    """

    issuer: SecureUrl
    resource: SecureUrl
    audience: tuple[str, ...] = ()
    jwks_url: SecureUrl | None = None
    jwks_file: Path | None = None
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "PS256", "ES256", "EdDSA"), min_length=1)

    @model_validator(mode="after")
    def _keys_come_from_one_place(self) -> Self:
        if (self.jwks_url is None) == (self.jwks_file is None):
            raise ValueError("give exactly one of jwks_url and jwks_file")
        return self

    @property
    def audiences(self) -> tuple[str, ...]:
        """What ``aud`` may be."""
        return self.audience or (self.resource,)


class AuthSettings(Section):
    """Who may call. Without tokens and oauth, everyone who reaches the port may.

    Attributes:
        tokens: static bearer tokens, by the name that logs and metrics know their bearer by.
        oauth: see `OAuthResource`.
    """

    tokens: Mapping[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], StaticToken] = {}
    oauth: OAuthResource | None = None

    @property
    def required(self) -> bool:
        """Whether a caller must show who it is."""
        return bool(self.tokens) or self.oauth is not None


class ConsoleSettings(Section):
    """Pages for people, below ``/console``.

    Attributes:
        enabled: whether they are served.
        actions: whether tools can be called and approved, and runs be cancelled there, by those who may; they only show
            what is otherwise.
    """

    enabled: bool = False
    actions: bool = False


class HttpSettings(Section):
    """How ``praxis-mcp serve --http`` and ``--sse`` listen.

    Attributes:
        host, port: where; port 0 is any free one. Another host than the loopback is refused without `auth`.
        tls_certificate, tls_key: files in PEM, read again when they change; both or neither.
        allowed_hosts: names under which clients reach this server, besides the loopback's, `host` and the host of
            ``auth.oauth.resource``; one without a port stands for every port.
        allowed_origins: origins of web pages whose scripts may call, besides pages of the loopback's.
        proxy_authenticates: a proxy in front lets nobody through whom it does not know, and nothing else can reach
            the port: another host than the loopback needs no `auth` then.
        auth: see `AuthSettings`.
        console: see `ConsoleSettings`.
        max_body: bytes of one request.
        max_sessions: sessions of clients of the older protocol revisions over Streamable HTTP; of these, of
            `max_streams` and of `max_connections` one authenticated caller has a quarter, or 8 where that is more.
        session_idle_timeout: seconds after which a session without any request ends.
        max_streams: streams that stay open for messages from the server: subscriptions, SSE connections.
        max_connections: connections at once. When one more comes, one gives way on which no request is under way: first
            the one that has waited longest without a request from a caller who may call.
        read_timeout: seconds in which the head, and then the body, of a request must have come.
        keep_alive: seconds that a connection without requests is kept.
        drain_delay: seconds after the first signal in which calls are still taken while ``/ready`` says no already, for
            balancers that take as long to hear of it.
        drain: seconds that running calls may go on at shutdown before they are cancelled.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65535)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[Host, ...] = ()
    allowed_origins: tuple[Origin, ...] = ()
    proxy_authenticates: bool = False
    auth: AuthSettings = AuthSettings()
    console: ConsoleSettings = ConsoleSettings()
    max_body: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_sessions: int = Field(default=1000, gt=0)
    session_idle_timeout: float = Field(default=1800, gt=0)
    max_streams: int = Field(default=256, gt=0)
    max_connections: int = Field(default=1024, gt=0)
    read_timeout: float = Field(default=30, gt=0)
    keep_alive: int = Field(default=30, gt=0)
    drain_delay: float = Field(default=0, ge=0)
    drain: float = Field(default=10, ge=0)

    @model_validator(mode="after")
    def _tls_has_both_files(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give both of tls_certificate and tls_key, or neither")
        return self
