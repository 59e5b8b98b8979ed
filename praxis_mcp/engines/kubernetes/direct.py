"""A channel to a praxis-init without the API server: a TCP connection to the pod's address.

Nothing of it is encrypted. The secret keeps strangers from taking a pod's place; who can read the network reads the
secret, too, and all of the call.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from typing import Any

import anyio

from praxis_mcp.engines.kubernetes.spec import CHANNEL_PORT
from praxis_mcp.support.unix_stream import UnixStream

DIRECT_CONNECT_TIMEOUT = 5.0
"""Seconds for one attempt to connect: a host without a way to the pods gets no answer."""
_IDLE, _INTERVAL, _COUNT = 15, 5, 3
"""As praxis-init asks for its caller (native/listener.c): seconds, seconds, and how often."""


class DirectChannel(UnixStream):
    """A connection to a pod's praxis-init (see `engines.init.waiter.Channel`)."""

    @classmethod
    async def to(cls, address: str, port: int = CHANNEL_PORT) -> DirectChannel:
        """Connect.

        Args:
            address: of the pod, IPv4 or IPv6; empty where it has none.
            port: where praxis-init listens.

        Raises:
            OSError: nobody listens, or there is no way there.
        """
        if not address:
            raise OSError(errno.EADDRNOTAVAIL, "it has no address yet")
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            with anyio.move_on_after(DIRECT_CONNECT_TIMEOUT) as limit:
                number = connection.connect_ex((address, port))
                if number in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                    await anyio.wait_writable(connection)
                    number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    raise OSError(number, os.strerror(number))
            if limit.cancelled_caught:
                raise TimeoutError(errno.ETIMEDOUT, "it does not answer")
            _keep_alive(connection)
        except BaseException:
            connection.close()
            raise
        return cls(connection)


def _keep_alive(connection: socket.socket) -> None:
    """Notice where the pod's node is gone, whether something is under way to it or not."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    lost_after = _IDLE + _INTERVAL * _COUNT
    for name, value in (
        ("TCP_KEEPIDLE", _IDLE),
        ("TCP_KEEPINTVL", _INTERVAL),
        ("TCP_KEEPCNT", _COUNT),
        ("TCP_USER_TIMEOUT", lost_after * 1000),
    ):
        option = getattr(socket, name, None)  # not every system has each
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def address_of(pod: Mapping[str, Any]) -> str:
    """The address of a pod; empty while it has none."""
    return str((pod.get("status") or {}).get("podIP") or "")
