"""Ports of the loopback for servers that have theirs named before they listen, or have it again in another life."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NOWHERE = "http://127.0.0.1:9/mcp"
"""Where nothing listens: the port of a service that nobody runs, and that the kernel gives to nobody."""


@contextmanager
def held_port() -> Iterator[int]:
    """A free port that the kernel gives to nobody else meanwhile. Who sets SO_REUSEADDR, as servers do, can listen."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def is_bindable(host: str, port: int = 0) -> bool:
    """Whether a server could have this port of an address; by default any, so whether this machine has the address.

    Args:
        host: IPv4 or IPv6, which may be in brackets.
        port: 0 is any.
    """
    with suppress(OSError), socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host.strip("[]"), port))
        return True
    return False


def is_listened_at(port: int, host: str = "127.0.0.1", process: int | str = "self") -> bool:
    """Whether somebody listens there, by the kernel's table: to connect would be seen.

    Args:
        port: its number.
        host: as `is_bindable`.
        process: id of one whose network it is.
    """
    family, table = (socket.AF_INET6, "tcp6") if ":" in host else (socket.AF_INET, "tcp")
    packed = socket.inet_pton(family, host.strip("[]"))
    quads = [packed[start : start + 4][::-1].hex().upper() for start in range(0, len(packed), 4)]
    wanted = f" {''.join(quads)}:{port:04X} "
    rows = Path(f"/proc/{process}/net/{table}").read_text(encoding="ascii").splitlines()
    return any(wanted in row and row.split()[3] == "0A" for row in rows)
