"""The socket over which an exec that waits is handed its call: of this machine, and forwarded by Dagger."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import anyio

from praxis_mcp.engines.init.framing import WaitCall, encode_call
from praxis_mcp.engines.init.waiter import WaiterLost
from praxis_mcp.support.unix_stream import UnixStream

_HANG_UP = encode_call(WaitCall([b"none"])) * 2
"""A call that begins twice: praxis-init ends all that it runs, and leaves, where it reads that between two frames."""


class ForwardedChannel(UnixStream):
    """A channel that Dagger forwards from an exec. It does not tell the exec that this end was closed (seen with
    v0.21.8, as with BuildKit's forwarding), so closing says so in words that praxis-init refuses."""

    async def aclose(self) -> None:
        """See `UnixStream.aclose`."""
        with suppress(OSError):
            self._socket.send(_HANG_UP, socket.MSG_DONTWAIT)
        await super().aclose()


class CallSocket:
    """A Unix socket on this machine to which one exec connects, once."""

    def __init__(self, path: Path) -> None:
        """Raises OSError: the path is too long (107 bytes), or cannot be written to."""
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.setblocking(False)
            self._listener.bind(str(path))
            self._listener.listen(1)
        except BaseException:
            self._listener.close()
            raise

    async def accept(self, abandoned: anyio.Event) -> ForwardedChannel:
        """The connection, when it comes.

        Raises:
            WaiterLost: `abandoned` was set before.
        """
        async with anyio.create_task_group() as tasks:

            async def stop_waiting() -> None:
                await abandoned.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(stop_waiting)
            await anyio.wait_readable(self._listener)
            tasks.cancel_scope.cancel()
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError as exc:
            raise WaiterLost("the exec ended before it connected", may_have_run=False) from exc
        connection.setblocking(False)
        return ForwardedChannel(connection)

    def close(self) -> None:
        """Nothing connects any more, the tool of the call least of all."""
        self._listener.close()
        self.path.unlink(missing_ok=True)
