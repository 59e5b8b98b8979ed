"""JWT access tokens of an OAuth authorization server → callers (RFC 9068, RFC 8707)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt
from mcp.server.auth.provider import AccessToken

from praxis_mcp.serving.http.jwks import KeySet
from praxis_mcp.serving.http.tokens import BadToken
from praxis_mcp.settings.http import OAuthResource

LEEWAY = 10.0
"""Seconds that clocks may differ by."""
MAX_TOKEN_LENGTH = 16 * 1024
_CLAIMS = ("exp", "iss", "aud")


class JwtTokens:
    """Takes a token that the issuer signed, for this resource, and that has not expired."""

    def __init__(self, settings: OAuthResource, keys: KeySet) -> None:
        self._settings = settings
        self._keys = keys

    async def check(self, token: str) -> AccessToken | None:
        """See `TokenCheck.check`."""
        if token.count(".") != 2 or len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            claims = await self._claims(token)
        except jwt.PyJWTError as exc:
            raise BadToken(_REASONS.get(type(exc), "The token is not valid")) from exc
        return _access(claims)

    async def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in self._settings.algorithms:
            raise BadToken("The token is signed in a way that is not taken here")
        key = await self._keys.find(header.get("kid"))
        if key is None:
            raise BadToken("The token is signed with a key that its issuer does not publish")
        # A key that names its algorithm is bound to it. The others are bound to their type, and to the allow-list.
        public = jwt.PyJWK(dict(key), algorithm=key.get("alg") or algorithm)
        return jwt.decode(
            token,
            public,
            algorithms=self._settings.algorithms,
            audience=self._settings.audiences,
            issuer=self._settings.issuer,
            leeway=LEEWAY,
            options={"require": list(_CLAIMS)},
        )


_REASONS: Mapping[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "The token has expired",
    jwt.ImmatureSignatureError: "The token is not valid yet",
    jwt.InvalidAudienceError: "The token is meant for another server",
    jwt.InvalidIssuerError: "The token is from another issuer",
    jwt.InvalidSignatureError: "The token's signature is wrong",
    jwt.MissingRequiredClaimError: "The token lacks one of exp, iss and aud",
}


def _access(claims: Mapping[str, Any]) -> AccessToken:
    issuer = str(claims["iss"])
    client = _text(claims, "client_id") or _text(claims, "azp")
    subject = _text(claims, "sub")
    if not client and not subject:
        raise BadToken("The token names neither a subject nor a client")
    return AccessToken(
        token="",
        client_id=client or subject,
        scopes=_scopes(claims),
        subject=subject or None,
        claims={"iss": issuer},
    )


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _scopes(claims: Mapping[str, Any]) -> list[str]:
    # RFC 9068 has one string "scope"; others write "scp", as a string or a list.
    value = claims.get("scope") or claims.get("scp") or ""
    words = value.split() if isinstance(value, str) else value
    return [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
