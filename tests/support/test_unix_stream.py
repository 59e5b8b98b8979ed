"""Connections to Unix sockets, cancelled at any moment."""

import gc
import socket
import warnings
from pathlib import Path

import anyio
import pytest

from praxis_mcp.support.unix_stream import UnixStream

pytestmark = pytest.mark.anyio


async def test_a_connection_that_is_cancelled_as_it_is_made_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        listener.bind(path)
        listener.listen()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await UnixStream.connect(path)
        gc.collect()
    assert scope.cancelled_caught
    assert [str(item.message) for item in found if item.category is ResourceWarning] == []
