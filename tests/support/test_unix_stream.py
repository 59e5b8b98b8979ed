"""Connections to Unix sockets, cancelled at any moment."""

import socket
from pathlib import Path

import anyio
import pytest

from praxis_mcp.support.unix_stream import UnixStream

pytestmark = pytest.mark.anyio

LIMIT = 60.0
"""Seconds; bounds what would hang."""


async def test_a_connection_that_is_cancelled_as_it_is_made_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await UnixStream.connect(path)
        listener.settimeout(LIMIT)
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(LIMIT)
            assert accepted.recv(1) == b"", "the other end is closed"
    assert scope.cancelled_caught
