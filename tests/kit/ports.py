"""Ports of the loopback for servers that have theirs named before they listen, or have it again in another life."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

NOWHERE = "http://127.0.0.1:9/mcp"
"""Where nothing listens: the port of a service that nobody runs, and that the kernel gives to nobody."""


@contextmanager
def held_port() -> Iterator[int]:
    """A free port that the kernel gives to nobody else meanwhile. Who sets SO_REUSEADDR, as servers do, can listen."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
