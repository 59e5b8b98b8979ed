"""The socket that HTTP is served on, and who can reach it."""

from __future__ import annotations

import ipaddress
import os
import socket

import anyio

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.http import HttpSettings
from praxis_mcp.support.logs import logger


async def open_listener(settings: HttpSettings) -> socket.socket:
    """A socket bound to the settings' address; where the host's name has several, to the first.

    Raises:
        SettingsError: the address does not exist, is in use, or can be reached from elsewhere while nobody would have
            to show who they are.
    """
    try:
        found = await anyio.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise SettingsError(
            f"The host {settings.host} cannot be listened on: {exc.strerror}.", remedy="Fix http.host or --host."
        ) from exc
    family, kind, protocol, _, address = found[0]
    check_exposure(settings, str(address[0]))
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # Else the port of a server that has just ended cannot be had again for a minute.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
    except OSError as exc:
        listener.close()
        raise SettingsError(
            f"Port {settings.port} of {settings.host} cannot be listened on: {os.strerror(exc.errno or 0)}.",
            remedy="Stop what uses it, or choose another with --port; --port 0 takes any free one.",
        ) from exc
    return listener


def check_exposure(settings: HttpSettings, address: str) -> None:
    """Refuse to be reached from elsewhere by people who need not show who they are.

    Raises:
        SettingsError: that is how it would be.
    """
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return
    if not settings.auth.required and not settings.proxy_authenticates:
        raise SettingsError(
            f"{settings.host} can be reached from other machines, and whoever does could call every tool.",
            remedy="Listen on 127.0.0.1; or give callers tokens (praxis-mcp token new) or name an OAuth issuer "
            "(http.auth.oauth). Where a proxy in front lets nobody else through, say http.proxy_authenticates: true.",
        )
    if settings.tls_certificate is None and not settings.proxy_authenticates:
        logger.warning("tokens travel unencrypted unless something in front adds TLS (http.tls_certificate)")
    if not settings.allowed_hosts and ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        logger.warning("clients on other machines are refused until http.allowed_hosts says how they call this server")
