"""How registries are logged in to: tokens of an authorization service, or the password itself.

Docker's "Token Authentication Specification" and "OAuth2 Token Authentication", which the OCI specification refers to.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2

from praxis_mcp.errors import ImageError
from praxis_mcp.images.credentials import Login

_LIFETIME = 60.0
"""Seconds that a token is good for where nothing says so: the specification's own minimum."""
_MAX_TOKEN_LIFETIME = 24 * 3600.0
_MAX_TOKEN_ANSWER = 1024 * 1024
_PARAMETER = re.compile(r'([A-Za-z_]+)=(?:"([^"]*)"|([^,\s]+))')


class Authorizer:
    """The headers that let requests through, learned from a registry's first refusal.

    Args:
        client: sends requests for tokens.
        registry: named in errors.
        login: who asks; None asks without a name, as for public images.
    """

    def __init__(self, client: httpx2.AsyncClient, registry: str, login: Login | None) -> None:
        self._client = client
        self._registry = registry
        self._login = login
        self._basic = False
        self._tokens: dict[str, tuple[str, float]] = {}

    def headers(self, repository: str) -> dict[str, str]:
        """The headers for a request about that repository."""
        if self._basic and self._login is not None:
            return {"Authorization": _basic(self._login)}
        token, until = self._tokens.get(repository, ("", 0.0))
        return {"Authorization": f"Bearer {token}"} if time.monotonic() < until else {}

    async def answer(self, challenge: str, repository: str) -> None:
        """Take up what a refusal asks for (``WWW-Authenticate``).

        Raises:
            ImageError: there is no login, it was refused, or the registry asks for something unknown.
            httpx2.TransportError: the authorization service cannot be reached.
        """
        kind, _, rest = challenge.partition(" ")
        values = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
        match kind.lower():
            case "basic" if self._login is not None and self._login.username and not self._basic:
                self._basic = True
            case "bearer" if "realm" in values:
                await self._fetch(values["realm"], values.get("service", ""), repository)
            case _:
                raise self._refused("it asks for a login")

    async def _fetch(self, realm: str, service: str, repository: str) -> None:
        try:
            parts = urlsplit(realm)
        except ValueError:
            raise self._refused("it names no authorization service that can be asked") from None
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ImageError(f"The registry {self._registry} sends logins to {realm[:200]}, which is not encrypted.")
        scope = f"repository:{repository}:pull"
        login = self._login
        if login is not None and login.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": login.identity_token,
                "service": service,
                "scope": scope,
                "client_id": "praxis-mcp",
            }
            answer = await self._ask("POST", realm, data=form)
        else:
            headers = {"Authorization": _basic(login)} if login is not None else {}
            answer = await self._ask("GET", realm, params={"service": service, "scope": scope}, headers=headers)
        found = answer.get("token") or answer.get("access_token")
        if not isinstance(found, str) or not (found.isascii() and found.isprintable()):
            raise self._refused("its authorization service gave no token")
        lifetime = answer.get("expires_in")
        seconds = (
            min(lifetime, _MAX_TOKEN_LIFETIME) if isinstance(lifetime, int | float) and lifetime > 0 else _LIFETIME
        )
        self._tokens[repository] = (found, time.monotonic() + max(seconds - 5, 5))

    async def _ask(
        self,
        method: str,
        realm: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        """What the authorization service answers. No redirect is followed: the login is for that address alone."""
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        body = bytearray()
        try:
            async with self._client.stream(
                method, realm, params=params, data=data, headers=sent, follow_redirects=False
            ) as response:
                if response.status_code != 200:
                    raise self._refused(f"its authorization service answered {response.status_code}")
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > _MAX_TOKEN_ANSWER:
                        raise self._refused(f"its authorization service sends more than {_MAX_TOKEN_ANSWER} bytes")
        except httpx2.InvalidURL as exc:
            raise self._refused("it names no authorization service that can be asked") from exc
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._refused("its authorization service gave no token")
        return answer

    def _refused(self, why: str) -> ImageError:
        return ImageError(
            f"The registry {self._registry} does not let us in: {why}.",
            remedy=f"Check the image's name, or log in: docker login {self._registry}.",
        )


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
