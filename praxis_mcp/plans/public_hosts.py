"""Which hosts are of the public internet, and which others the settings name (`policy.private_hosts`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from praxis_mcp.errors import LimitUnsupported

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


def says_it_is_private(host: str) -> bool:
    """Whether a host shows without a look-up that it is not of the public internet: an address, or localhost. Other
    names are judged by the address that is connected to."""
    try:
        return not is_public(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def is_named(host: str, port: int, allowed: Collection[str]) -> bool:
    """Whether the settings name the host, alone or with this port."""
    name = host.strip("[]").lower()
    return not {name, f"{name}:{port}", f"[{name}]:{port}"}.isdisjoint(item.lower() for item in allowed)


def setting_for(host: str) -> str:
    """The setting that allows the host, in YAML."""
    name = host.strip("[]")
    return f"policy.private_hosts: [{repr(name) if ':' in name else name}]"


def refusal(host: str) -> LimitUnsupported:
    """Why nothing connects to a host that is neither."""
    return LimitUnsupported(
        f"{host.strip('[]')} is not on the public internet, but on this machine or a network of its own.",
        remedy=f"If it may be reached, name it in the settings: {setting_for(host)}.",
    )


def host_refusals(url: str, allowed: Collection[str]) -> Iterator[LimitUnsupported]:
    """Why every request to the URL would be refused, as far as its host shows it without a look-up."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if says_it_is_private(host) and not is_named(host, port, allowed):
        yield refusal(host)
