"""Settings of other MCP servers whose tools are republished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Transport = Literal["auto", "http", "sse", "stdio"]
"""The transport to another server. ``auto`` goes by the address: a command is ``stdio``, a URL whose path ends in
``/sse`` is ``sse`` (HTTP+SSE of 2024-11-05), any other ``http`` (Streamable HTTP of any revision)."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SecretName(_Section):
    """Names a secret (see `Settings.secrets`)."""

    secret: str = Field(min_length=1)


TextOrSecret = str | SecretName


class OAuthSettings(_Section):
    """Credentials for the OAuth 2.1 client credentials grant. `client_secret` names a secret; `issuer` is the
    identifier of the authorization server that they belong to: tokens are asked of no other."""

    client_id: str
    client_secret: str
    issuer: str = Field(pattern=r"^https?://")
    scope: str | None = None


class UpstreamSettings(_Section):
    """One other MCP server whose tools are republished.

    Attributes:
        address: its URL, or the words of the command that starts it, in the project (`Settings.base`).
        transport: see `Transport`.
        env: variables for the command, beside PATH, HOME and the few others that every program needs.
        headers: HTTP headers.
        auth_token: bearer token. The token of a client of this server is never passed on.
        oauth: see `OAuthSettings`.
        prefix: before each tool's name; None is the upstream's own name and ``_``; empty leaves names as they are.
            Where it begins another upstream's, as an empty one does, the tools are to be listed in `include`.
        include, exclude: globs of the tools' names there; a tool is taken if one of the first matches, and none of the
            second.
        rename: name there → name here, before the prefix.
        describe: name there → description here.
        timeout: seconds that a call may take.
        refresh: seconds after which tools are listed again, beside when the server says that they have changed.
        idle_timeout: seconds without a call after which a server that was started by command is ended, until the next
            call; None never.
        pin: serve only what was approved: a tool that is new, or whose description or schema has changed, is held back
            until ``praxis-mcp upstreams approve``.
    """

    address: str | tuple[str, ...] = Field(min_length=1)
    transport: Transport = "auto"
    env: Mapping[Annotated[str, Field(pattern=r"^[^=\x00]+$")], TextOrSecret] = {}
    headers: Mapping[str, TextOrSecret] = {}
    auth_token: TextOrSecret | None = None
    oauth: OAuthSettings | None = None
    prefix: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]*$", max_length=64)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    rename: Mapping[str, Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]] = {}
    describe: Mapping[str, str] = {}
    timeout: float = Field(default=300, gt=0)
    refresh: float = Field(default=300, ge=1)
    idle_timeout: float | None = Field(default=600, gt=0)
    pin: bool = False

    @field_validator("rename")
    @classmethod
    def _names_differ(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if len(set(value.values())) < len(value):
            raise ValueError("two tools cannot have the same new name")
        return value

    @model_validator(mode="after")
    def _fields_fit_the_address(self) -> UpstreamSettings:
        headers = bool(self.headers or self.auth_token or self.oauth)
        check_address(self.address, self.transport, headers=headers, env=bool(self.env))
        if self.oauth and self.auth_token:
            raise ValueError("auth_token and oauth cannot both be given")
        return self


def check_address(address: str | tuple[str, ...], transport: str, *, headers: bool, env: bool) -> None:
    """Refuse an address of another MCP server that its transport cannot reach, and fields that would do nothing.

    Raises:
        ValueError: says what does not go together.
    """
    is_command = isinstance(address, tuple) or transport == "stdio"
    if is_command and transport in ("http", "sse"):
        raise ValueError(f"transport: {transport} needs a URL as address, not a command")
    if is_command and headers:
        raise ValueError("headers, auth_token and oauth go with a URL; give a command its credentials by env")
    if not is_command and env:
        raise ValueError("env goes with a command as address, not with a URL")
    if not is_command and not str(address).lower().startswith(("http://", "https://")):
        raise ValueError("the address is a URL with http:// or https://, or a list of the words of a command")
