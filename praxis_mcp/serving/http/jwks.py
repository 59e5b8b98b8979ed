"""The public keys that an authorization server signs tokens with, from its JWKS (RFC 7517)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.to_thread
import httpx2

from praxis_mcp.errors import SettingsError
from praxis_mcp.serving.http.file_stamps import STAMP_CHECK_INTERVAL, Stamp, stamp_of
from praxis_mcp.settings.http import OAuthResource
from praxis_mcp.support.logs import logger

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
    """No keys are at hand, and none can be had now."""


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
        async with self._lock:  # whoever waited here finds what the one before has fetched
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
        ValueError: it is no JWKS, or has no such key.
    """
    document = json.loads(data)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError('there is no list "keys"')
    # "oct" keys are secrets that would let whoever checks a token make one.
    usable = tuple(
        key
        for key in keys[:MAX_KEYS]
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    )
    if not usable:
        raise ValueError("there is no public key for signatures among its keys")
    return usable
