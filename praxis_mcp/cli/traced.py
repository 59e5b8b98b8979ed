"""The command line's own call as a span, where spans are exported: as a call that `serve` answers, without a client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_METHOD = "tools/call"


@asynccontextmanager
async def traced_call() -> AsyncIterator[Callable[[str], None]]:
    """Around a call, which its runner names; yields what marks the span as failed, with the kind of error. Where no
    spans are exported, nothing of OpenTelemetry is imported.

    The process that starts the command may name its trace by variables (``TRACEPARENT``, ``TRACESTATE``, ``BAGGAGE``;
    https://opentelemetry.io/docs/specs/otel/context/env-carriers/). The span is exported before this ends, if the
    collector takes it within `LAST_SPANS`.
    """
    import anyio
    import anyio.to_thread

    from praxis_mcp.support.telemetry import LAST_SPANS, open_telemetry, tracing_is_wanted
    from praxis_mcp.support.tracing import TraceContext

    telemetry = await anyio.to_thread.run_sync(open_telemetry) if tracing_is_wanted() else None
    if telemetry is None:
        yield lambda _: None
        return
    names = ("traceparent", "tracestate", "baggage")
    parent = TraceContext.read({name: value for name in names if (value := os.environ.get(name.upper()))})
    attributes = {"mcp.method.name": _METHOD, "gen_ai.operation.name": "execute_tool"}
    try:
        with telemetry.serving(_METHOD, attributes, parent, None) as span:
            try:
                yield span.failed
            except Exception as exc:
                span.failed(type(exc).__qualname__)
                raise
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(telemetry.close, LAST_SPANS)
