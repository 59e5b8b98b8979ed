"""Connections to Unix sockets, cancelled at any moment."""

import os
import socket
from pathlib import Path

import anyio
import pytest

from praxis_mcp.support.unix_stream import UnixStream

pytestmark = pytest.mark.anyio


async def test_a_connection_that_is_cancelled_as_it_is_made_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        before = os.listdir("/dev/fd")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await UnixStream.connect(path)
        assert os.listdir("/dev/fd") == before
    assert scope.cancelled_caught
