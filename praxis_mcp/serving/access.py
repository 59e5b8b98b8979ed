"""Who is calling, which tools they may see and call, and the bearer tokens of the settings that stand for callers."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Protocol

from praxis_mcp.settings.http import StaticToken

TOOLS = "tools:"
"""Scopes ``tools:GLOB``: the tools whose names match (``*``, ``?``, ``[…]``) may be seen and called."""
ALL_TOOLS = "tools:*"
TOOLSET = "toolset:"
"""Scopes ``toolset:NAME`` of JWTs: only the tools of the toolsets that they name may be seen and called."""
READ_METRICS = "metrics:read"
READ_RUNS = "runs:read"
"""The scope that shows the runs of every caller in the console."""
FIND_TOOL, CALL_TOOL = "find_tool", "call_tool"
"""The tools by which others are found and called. No scope is needed for them: those of the tools themselves hold."""
SCOPE_KEY = "praxis.caller"
"""Where an HTTP request's ASGI scope holds its `Caller`."""


class ToolView(Protocol):
    """Some of the tools."""

    def has(self, tool: str) -> bool:
        """Whether the tool of that name, which is served, is one of them."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling.

    Attributes:
        name: tells callers apart; empty for everyone who need not identify themselves.
        scopes: what they may do.
        client: the OAuth client that acts for them, if any; clients of one caller do not share sessions.
        toolsets: those that their token names; None where it names none.
        view: the tools that the toolsets leave them; None leaves all.
    """

    name: str
    scopes: frozenset[str]
    client: str = ""
    toolsets: frozenset[str] | None = None
    view: ToolView | None = None

    @property
    def calls_tools(self) -> bool:
        """Whether there may be tools for them at all."""
        return any(scope.startswith(TOOLS) for scope in self.scopes)

    @property
    def calls_all_tools(self) -> bool:
        """Whether no tool is kept from them."""
        return ALL_TOOLS in self.scopes and self.view is None

    def may_call(self, tool: str) -> bool:
        """Whether they may see and call that tool."""
        return self.covers(tool) and self.sees(tool)

    def sees(self, tool: str) -> bool:
        """Whether that tool exists for them: it is in the toolsets, if there are any."""
        return self.view is None or self.view.has(tool)

    def covers(self, tool: str) -> bool:
        """Whether their scopes cover that tool."""
        return ALL_TOOLS in self.scopes or any(
            fnmatchcase(tool, scope.removeprefix(TOOLS)) for scope in self.scopes if scope.startswith(TOOLS)
        )


ANYONE = Caller("", frozenset({ALL_TOOLS, READ_METRICS, READ_RUNS}))
"""Every caller of a server that needs no credentials."""


PREFIX = "praxis_"
"""Tokens begin with it, so that scanners for leaked secrets can recognize them."""
_RANDOM_BYTES = 32


class BadToken(Exception):
    """A token that is not accepted; the message says why, without a part of it."""


class TokenCheck(Protocol):
    """One way to check tokens."""

    async def check(self, token: str) -> Caller | None:
        """What a token stands for; None where it is of another kind.

        Raises:
            BadToken: it is of this kind, but not accepted.
            KeysUnavailable: whether it is accepted cannot be determined now.
        """
        ...


class StaticTokens:
    """The tokens whose hashes the settings hold."""

    def __init__(self, tokens: Mapping[str, StaticToken]) -> None:
        self._tokens = tokens

    async def check(self, token: str) -> Caller | None:
        """See `TokenCheck.check`."""
        digest = hash_token(token)
        found: str | None = None
        # Every hash is compared, and in constant time, so that timing does not reveal which is nearest.
        for name, known in self._tokens.items():
            if hmac.compare_digest(digest, known.sha256):
                found = name
        if found is None:
            return None
        known = self._tokens[found]
        if known.expires is not None and known.expires <= datetime.now(UTC):
            raise BadToken("The token has expired")
        return Caller(f"token:{found}", frozenset(known.scopes), toolsets=frozenset(known.toolsets) or None)


def new_token() -> str:
    """A token with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_token(token: str) -> str:
    """What the settings hold instead of the token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
