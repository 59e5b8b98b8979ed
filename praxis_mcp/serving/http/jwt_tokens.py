"""JWT access tokens of an OAuth authorization server → callers (RFC 9068, RFC 8707), and the public keys (JWKS, RFC
7517) that they are checked with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import jwt

from praxis_mcp.errors import SettingsError
from praxis_mcp.serving.access import ALL_TOOLS, TOOLS, TOOLSET, BadToken, Caller
from praxis_mcp.settings.http import OAuthResource
from praxis_mcp.support.files import STAMP_CHECK_INTERVAL, Stamp, stamp_of
from praxis_mcp.support.logs import logger

LEEWAY = 10.0
"""Seconds that clocks may differ by."""
MAX_TOKEN_LENGTH = 16 * 1024
_CLAIMS = ("exp", "iss", "aud")


class JwtTokens:
    """Takes a token that the issuer signed, for this resource, and that has not expired."""

    def __init__(self, settings: OAuthResource, keys: KeySet) -> None:
        self._settings = settings
        self._keys = keys

    async def check(self, token: str) -> Caller | None:
        """See `TokenCheck.check`."""
        if token.count(".") != 2 or len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            claims = await self._claims(token)
        except jwt.PyJWTError as exc:
            raise BadToken(_REASONS.get(type(exc), "The token is not valid")) from exc
        return _caller(claims)

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


def _caller(claims: Mapping[str, Any]) -> Caller:
    issuer = str(claims["iss"])
    client = _text(claims, "client_id") or _text(claims, "azp")
    subject = _text(claims, "sub")
    if not client and not subject:
        raise BadToken("The token names neither a subject nor a client")
    name = f"{issuer} sub:{subject}" if subject else f"{issuer} client:{client}"
    scopes = frozenset(_scopes(claims))
    toolsets = frozenset(scope.removeprefix(TOOLSET) for scope in scopes if scope.startswith(TOOLSET)) or None
    if toolsets is not None and not any(scope.startswith(TOOLS) for scope in scopes):
        scopes |= {ALL_TOOLS}  # of these toolsets
    return Caller(name, scopes, client, toolsets)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _scopes(claims: Mapping[str, Any]) -> list[str]:
    # RFC 9068 has one string "scope"; others write "scp", as a string or a list.
    value = claims.get("scope") or claims.get("scp") or ""
    words = value.split() if isinstance(value, str) else value
    return [word for word in words if isinstance(word, str)] if isinstance(words, list) else []


FRESH = 600.0
"""Seconds that fetched keys are used without asking again."""
STALE = 24 * 3600.0
"""Seconds that keys are used while the server that has them is out of reach."""
FETCH_PAUSE = 20.0
"""Seconds between two fetches, whatever tokens ask for: unknown key ids cost an attacker nothing."""
FETCH_TIMEOUT = 5.0
MAX_KEY_SET = 256 * 1024
MAX_KEYS = 100

Jwk = Mapping[str, Any]


class KeysUnavailable(Exception):
    """No keys are available, and none can be fetched now."""


class KeySet:
    """Keys by id: from a URL, fetched when first needed, again when they are old, and once more when a token names a
    new one; or from a file, read at the start and again when it has changed."""

    def __init__(self, settings: OAuthResource) -> None:
        self._url, self._file = settings.jwks_url, settings.jwks_file
        self._keys: tuple[Jwk, ...] = ()
        self._fetched: float | None = None
        self._tried: float | None = None
        self._stamp: Stamp = None
        self._lock = anyio.Lock()

    async def read_file(self) -> None:
        """Read the keys, where they come from a file.

        Raises:
            SettingsError: they cannot be read.
        """
        if self._file is None:
            return
        self._tried = anyio.current_time()
        self._stamp = await anyio.to_thread.run_sync(stamp_of, self._file)
        try:
            self._keys = read_keys(await anyio.Path(self._file).read_bytes())
        except OSError as exc:
            raise SettingsError(f"http.auth.oauth.jwks_file cannot be read: {exc.strerror}: {self._file}.") from exc
        except ValueError as exc:
            raise SettingsError(f"http.auth.oauth.jwks_file, {self._file}, holds no keys: {exc}.") from exc

    async def find(self, key_id: str | None) -> Jwk | None:
        """The key of that id, or the only key there is where a token names none; None where there is none.

        Raises:
            KeysUnavailable: there are no keys at all.
        """
        if self._url is not None:
            await self._refresh(lambda: self._match(key_id) is None)
            if not self._keys or self._age > STALE:
                raise KeysUnavailable
        else:
            await self._read_again()
        return self._match(key_id)

    @property
    def _age(self) -> float:
        return float("inf") if self._fetched is None else anyio.current_time() - self._fetched

    def _match(self, key_id: str | None) -> Jwk | None:
        if key_id is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.get("kid") == key_id), None)

    async def _read_again(self) -> None:
        """Read the file if it has changed; what cannot be read is logged, and the keys before it stay."""
        assert self._file is not None
        if self._tried is not None and anyio.current_time() - self._tried < STAMP_CHECK_INTERVAL:
            return
        before, self._tried = self._stamp, anyio.current_time()
        if await anyio.to_thread.run_sync(stamp_of, self._file) == before:
            return
        try:
            await self.read_file()
        except SettingsError as exc:
            logger.warning("the keys before stay in use: {}", exc)
        else:
            logger.info("{} has changed, and its keys are in use now", self._file)

    async def _refresh(self, lacks: Callable[[], bool]) -> None:
        if self._age <= FRESH and not lacks():
            return
        async with self._lock:  # a task that waited here finds what the one before it fetched
            if self._age <= FRESH and not lacks():
                return
            if self._tried is not None and anyio.current_time() - self._tried < FETCH_PAUSE:
                return
            self._tried = anyio.current_time()
            try:
                self._keys = read_keys(await self._fetch())
                self._fetched = anyio.current_time()
            except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError) as exc:
                logger.warning("the keys at {} cannot be fetched: {}: {}", self._url, type(exc).__name__, exc)

    async def _fetch(self) -> bytes:
        assert self._url is not None
        with anyio.fail_after(FETCH_TIMEOUT):
            # No redirects: keys come from the place that the settings name, or not at all.
            async with (
                httpx2.AsyncClient(follow_redirects=False, timeout=FETCH_TIMEOUT) as client,
                client.stream("GET", self._url, headers={"Accept": "application/json"}) as response,
            ):
                if response.status_code != 200:
                    raise ValueError(f"status {response.status_code}")
                data = bytearray()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_KEY_SET:
                        raise ValueError(f"more than {MAX_KEY_SET} bytes")
                return bytes(data)


def read_keys(data: bytes) -> tuple[Jwk, ...]:
    """The public signature keys of a JWKS.

    Raises:
        ValueError: it is not a JWKS, or has no such key.
    """
    document = json.loads(data)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError('there is no list "keys"')
    # "oct" keys are secrets that would let anyone who checks a token make one.
    usable = tuple(
        key
        for key in keys[:MAX_KEYS]
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    )
    if not usable:
        raise ValueError("there is no public key for signatures among its keys")
    return usable
