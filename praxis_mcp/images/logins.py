"""Logins to image registries: those that ``docker login`` has stored (~/.docker/config.json, or where DOCKER_CONFIG
says), and how they are used: by tokens of an authorization service, or by the password itself.

Docker's "Token Authentication Specification" and "OAuth2 Token Authentication", which the OCI specification refers to.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from praxis_mcp.errors import ImageError
from praxis_mcp.images.model import DEFAULT_REGISTRY
from praxis_mcp.support.files import home

HELPER_TIMEOUT = 20.0
"""Seconds for a credential helper, which may ask a keyring."""
_HUB = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", "docker.io")
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LIFETIME = 60.0
"""Seconds that a token is good for where nothing says so: the specification's own minimum."""
_MAX_TOKEN_LIFETIME = 24 * 3600.0
_MAX_TOKEN_ANSWER = 1024 * 1024
_PARAMETER = re.compile(r'([A-Za-z_]+)=(?:"([^"]*)"|([^,\s]+))')


@dataclass(frozen=True, slots=True)
class Login:
    """A user and password, or an identity token to be exchanged for one."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def stored_login(registry: str) -> Login | None:
    """The login for a registry; None where none is stored. Blocks.

    Raises:
        ImageError: the file cannot be read, or a credential helper fails.
    """
    own = home()
    place = os.environ.get("DOCKER_CONFIG") or (own / ".docker" if own else None)
    if place is None:
        return None
    directory = Path(place)
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ImageError(f"Docker's logins in {directory}/config.json cannot be read: {exc}.") from exc
    if not isinstance(config, dict):
        return None
    hosts = _HUB if registry == DEFAULT_REGISTRY else (registry, f"https://{registry}", f"https://{registry}/v1/")
    helpers = _mapping(config, "credHelpers")
    for host in hosts:
        helper = helpers.get(host) or config.get("credsStore")
        if isinstance(helper, str) and helper and (login := _from_helper(helper, host)) is not None:
            return login
    auths = _mapping(config, "auths")
    for host in hosts:
        if isinstance(entry := auths.get(host), dict) and (login := _stored(entry)) is not None:
            return login
    return None


class Authorizer:
    """The headers that let requests through, learned from a registry's first refusal.

    Args:
        client: sends requests for tokens.
        registry: named in errors.
        login: None asks for tokens without one, as for public images.
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
        """Do what a refusal asks for (``WWW-Authenticate``).

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
        except ValueError as exc:
            raise self._refused("it names no usable authorization service") from exc
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
            raise self._refused("it names no usable authorization service") from exc
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


def _stored(entry: dict[str, Any]) -> Login | None:
    if token := entry.get("identitytoken"):
        return Login(identity_token=str(token))
    if entry.get("username"):
        return Login(str(entry["username"]), str(entry.get("password", "")))
    try:
        text = base64.b64decode(str(entry.get("auth", ""))).decode()
    except ValueError:
        return None
    username, colon, password = text.partition(":")
    return Login(username, password.rstrip("\0")) if colon else None


def _from_helper(helper: str, host: str) -> Login | None:
    """What ``docker-credential-HELPER get`` answers (docker/docker-credential-helpers, "Development")."""
    program = shutil.which(f"docker-credential-{helper}") if _HELPER_NAME.fullmatch(helper) else None
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get"], input=host, capture_output=True, text=True, timeout=HELPER_TIMEOUT, check=False
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError) as exc:
        raise ImageError(f"The credential helper {program} gave no login for {host}.") from exc
    if not isinstance(answer, dict):
        return None  # "credentials not found in native keychain"
    username, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
    return Login(identity_token=secret) if username == "<token>" else Login(username, secret)


def _mapping(config: dict[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
