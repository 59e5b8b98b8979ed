"""Connections to hosts of the public internet, and to those that the settings allow.

What is judged is the address that is connected to, not the name: a name may mean another address at the next look
(DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable
from typing import Any

import anyio
import httpcore2

from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.public_hosts import is_named, is_public, refusal

CONNECT_TIMEOUT = 10.0
"""Seconds for the name, and for each address."""
_MOST_ADDRESSES = 4


class PublicNetwork(httpcore2.AsyncNetworkBackend):
    """How the pool connects."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._backend: Any = httpcore2.AnyIOBackend()
        self._allowed = tuple(allowed)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """See the base.

        Raises:
            LimitUnsupported: none of the host's addresses may be connected to.
            ExecutionError: the host has no address.
        """
        name = host.strip("[]")
        is_allowed = is_named(name, port, self._allowed)
        found = await self._addresses(name, port)
        usable = [
            address for address in found if is_allowed or is_public(ipaddress.ip_address(address.partition("%")[0]))
        ]
        if not usable:
            raise refusal(name)
        for address in usable[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(usable[-1], port, timeout, local_address, socket_options)

    async def _addresses(self, name: str, port: int) -> list[str]:
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                found = await anyio.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as exc:
            raise ExecutionError(
                f"The host {name} cannot be found.", remedy="See whether its name is right, and the network there."
            ) from exc
        return list(dict.fromkeys(str(item[4][0]) for item in found))[:_MOST_ADDRESSES]

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        """See the base."""
        await anyio.sleep(seconds)
