"""Serving MCP over the process's own standard input and output, one JSON text a line (specification, transports).

The SDK's own stdio transport reads in a thread that nothing can interrupt, so that a server whose client keeps the
pipe open does not end at SIGTERM; and it drops what it cannot parse, so that the sender waits for ever. Here pipes and
sockets are read and written on the event loop, as far as that does not block, and all else in threads that die with the
process (each visit to a thread costs a call a third of a millisecond, and several on a busy machine); and a message
that cannot be read is answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, nullcontext

import anyio
from mcp.shared.message import SessionMessage

from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.mcp.server import PraxisServer
from praxis_mcp.serving.stdio_reading import Incoming, ReadStream
from praxis_mcp.serving.stdio_writing import Outgoing, Writer
from praxis_mcp.serving.wire import Wire, take_wire
from praxis_mcp.support.logs import logger
from praxis_mcp.support.mcp_sdk import WriteStream

MESSAGES_DRAIN_TIMEOUT = 2.0
"""Seconds that messages which are being written when the connection ends may take."""


async def serve_stdio(toolbox: Toolbox, wire: Wire | None = None) -> None:
    """Serve one client on standard input and output, until it closes them; or until cancelled, as by
    `lifetime.until_signalled`. Running calls are cancelled then, and what they started is killed.

    Args:
        toolbox: what to serve.
        wire: standard input and output, where the process has taken them already (see `take_wire`).
    """
    with take_wire() if wire is None else nullcontext(wire) as taken:
        async with PraxisServer.open(toolbox) as server:
            async with stdio_streams(taken) as (incoming, outgoing):
                await server.serve(incoming, outgoing)
            logger.info("the client has closed the connection")


@asynccontextmanager
async def stdio_streams(wire: Wire) -> AsyncIterator[tuple[ReadStream, WriteStream[SessionMessage]]]:
    """The two streams that the SDK's server loop runs on. The read stream ends with standard input, or when standard
    output breaks."""
    with closing(Writer(wire.stdout)) as writer:
        outgoing = Outgoing(writer, wire.answered)
        incoming = Incoming(wire, outgoing)
        # When the server is cancelled, the last answers may still go out, for a moment.
        writing = anyio.CancelScope(shield=True)
        written = anyio.Event()

        async def write() -> None:
            with writing:
                await outgoing.write_what_waits()
            written.set()
            # The client is gone: what it requested need not be finished.
            incoming.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            try:
                yield incoming, outgoing
            finally:
                outgoing.close()
                incoming.close()
                with anyio.move_on_after(MESSAGES_DRAIN_TIMEOUT, shield=True):
                    await written.wait()
                writing.cancel()
                tasks.cancel_scope.cancel()
