"""Serving MCP over a transport, from start to shutdown."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import anyio

from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.mcp.server import PraxisServer, build_server
from praxis_mcp.serving.stdio.transport import stdio_streams
from praxis_mcp.serving.stdio.wire import Wire, take_wire
from praxis_mcp.serving.stopping import stop_signals
from praxis_mcp.support.groups import unwrapped
from praxis_mcp.support.logs import logger


async def serve_stdio(toolbox: Toolbox, wire: Wire | None = None) -> None:
    """Serve one client on standard input and output, until it closes them or the process is told to stop.

    Running calls are cancelled then, and what they started is killed. A second SIGINT, SIGTERM or SIGHUP ends the
    process at once.

    Args:
        toolbox: what to serve.
        wire: standard input and output, where the process has taken them already (see `take_wire`).
    """
    with take_wire() if wire is None else nullcontext(wire) as taken:
        async with until_signalled(), build_server(toolbox) as server:
            await _serve(server, taken)


async def _serve(server: PraxisServer, wire: Wire) -> None:
    async with stdio_streams(wire) as (incoming, outgoing):
        await server.serve(incoming, outgoing)
    logger.info("the client has closed the connection")


@asynccontextmanager
async def until_signalled() -> AsyncIterator[None]:
    """Cancel the body at the first SIGINT, SIGTERM or SIGHUP, and end normally then."""

    async def watch(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(*stop_signals()) as signals:
            async for number in signals:
                logger.info("{}: shutting down", signal.Signals(number).name)
                scope.cancel()
                return

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            yield
            tasks.cancel_scope.cancel()
