"""Who is calling, and which tools they may see and call."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

TOOLS = "tools:"
"""Scopes ``tools:GLOB``: the tools whose names match (``*``, ``?``, ``[…]``) may be seen and called."""
ALL_TOOLS = "tools:*"
READ_METRICS = "metrics:read"
SCOPE_KEY = "praxis.caller"
"""Where an HTTP request's ASGI scope holds its `Caller`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling.

    Attributes:
        name: tells callers apart; empty for everyone who need not identify themselves.
        scopes: what they may do.
        client: the OAuth client that acts for them, if any; clients of one caller do not share sessions.
    """

    name: str
    scopes: frozenset[str]
    client: str = ""

    @property
    def calls_tools(self) -> bool:
        """Whether there may be tools for them at all."""
        return any(scope.startswith(TOOLS) for scope in self.scopes)

    @property
    def calls_all_tools(self) -> bool:
        """Whether no tool is kept from them."""
        return ALL_TOOLS in self.scopes

    def may_call(self, tool: str) -> bool:
        """Whether they may see and call that tool."""
        return self.calls_all_tools or any(
            fnmatchcase(tool, scope.removeprefix(TOOLS)) for scope in self.scopes if scope.startswith(TOOLS)
        )


ANYONE = Caller("", frozenset({ALL_TOOLS, READ_METRICS}))
"""Every caller of a server that needs no credentials."""
