"""Bearer tokens → callers: static ones by their hashes, and the protocol that checks of JWTs follow as well."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from praxis_mcp.serving.access import Caller
from praxis_mcp.settings.http import StaticToken

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
        return Caller(f"token:{found}", frozenset(known.scopes))


def new_token() -> str:
    """A token with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_token(token: str) -> str:
    """What the settings hold instead of the token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
