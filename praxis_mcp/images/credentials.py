"""Logins to image registries that ``docker login`` has stored (~/.docker/config.json, or where DOCKER_CONFIG says)."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from praxis_mcp.errors import ImageError
from praxis_mcp.images.references import DEFAULT_REGISTRY
from praxis_mcp.support.home import home

HELPER_TIMEOUT = 20.0
"""Seconds for a credential helper, which may ask a keyring."""
_HUB = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", "docker.io")
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")


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
        if isinstance(helper, str) and helper and (login := _ask(helper, host)) is not None:
            return login
    auths = _mapping(config, "auths")
    for host in hosts:
        if isinstance(entry := auths.get(host), dict) and (login := _stored(entry)) is not None:
            return login
    return None


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


def _ask(helper: str, host: str) -> Login | None:
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
