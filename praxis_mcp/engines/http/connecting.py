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

from praxis_mcp.errors import ExecutionError, LimitUnsupported

CONNECT_TIMEOUT = 10.0
"""Seconds for the name, and for each address."""
_MOST_ADDRESSES = 4

_OF_CLOUDS = tuple(map(ipaddress.IPv4Network, ("168.63.129.16/32", "192.0.0.0/24")))
"""Addresses at which a cloud answers its own machines (Azure's and Oracle's metadata), though they count as public."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: _Address) -> bool:
    """Whether an address is one of the public internet; one that holds another (mapped, 6to4, Teredo, NAT64) only if
    that is too."""
    if isinstance(address, ipaddress.IPv6Address):
        inner: list[_Address] = [*filter(None, (address.ipv4_mapped, address.sixtofour)), *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped is not None or address in _NAT64:
            return all(map(is_public, inner))
        if inner and not all(map(is_public, inner)):
            return False
        if address.is_site_local:
            return False
    elif any(address in network for network in _OF_CLOUDS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class PublicNetwork(httpcore2.AsyncNetworkBackend):
    """How the pool connects."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._backend: Any = httpcore2.AnyIOBackend()
        self._allowed = {host.lower() for host in allowed}

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
        is_allowed = bool(self._allowed & {name.lower(), f"{name}:{port}".lower(), f"{host}:{port}".lower()})
        found = await self._addresses(name, port)
        usable = [
            address for address in found if is_allowed or is_public(ipaddress.ip_address(address.partition("%")[0]))
        ]
        if not usable:
            raise LimitUnsupported(
                f"{name} is not on the public internet, but on this machine or a network of its own.",
                remedy=f"If it may be reached, name it in the settings: policy.private_hosts: [{name}].",
            )
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
