"""Each request as part of a trace: the client's own, passed on, and a span of it where spans are exported.

Names and attributes: OpenTelemetry's semantic conventions for MCP. In place of the MCP SDK's own middleware, whose
spans hold whatever clients send, and messages of errors, and whose reader of trace contexts logs what it refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.to_thread
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import ValidationError

from praxis_mcp.support.mcp_sdk import connection_of
from praxis_mcp.support.telemetry import LAST_SPANS, Telemetry, open_telemetry, tracing_is_wanted
from praxis_mcp.support.tracing import Trace, TraceContext, belonging_to

_OTHER = "_OTHER"
"""What the conventions call a value that is not known: a client may call any method, and each name would be kept."""
_KNOWN = frozenset(
    {
        "initialize", "ping", "notifications/cancelled", "notifications/initialized", "notifications/progress",
        "notifications/roots/list_changed", "server/discover",
    }
)  # fmt: skip

Context = ServerRequestContext[Any, Any]


class RequestTraces:
    """Middleware of the MCP server.

    Args:
        has_handler: whether the server knows a method.
    """

    def __init__(self, has_handler: Callable[[str], bool]) -> None:
        self._has_handler = has_handler
        self._telemetry: Telemetry | None = None
        self._loading: anyio.Event | None = None

    def open(self) -> bool:
        """Whether spans are to be exported; `load` has to be run then, and requests wait for it."""
        if not tracing_is_wanted():
            return False
        self._loading = anyio.Event()
        return True

    async def load(self) -> None:
        """Import what exports spans: half a second, meanwhile the catalog is read."""
        assert self._loading is not None
        try:
            self._telemetry = await anyio.to_thread.run_sync(open_telemetry)
        finally:
            self._loading.set()

    async def close(self) -> None:
        """Export the last spans, within `LAST_SPANS`."""
        telemetry, self._telemetry = self._telemetry, None
        if telemetry is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(telemetry.close, LAST_SPANS)

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Serve one message."""
        if self._loading is not None:
            await self._loading.wait()
        named = TraceContext.read(ctx.meta)
        around = TraceContext.read(ctx.request.headers) if ctx.request is not None else None
        parent = named if named is not None and (named.traceparent or around is None) else around
        if self._telemetry is None:
            if parent is None:
                return await call_next(ctx)
            with belonging_to(Trace(parent)):
                return await call_next(ctx)
        method = ctx.method if ctx.method in _KNOWN or self._has_handler(ctx.method) else _OTHER
        link = around if parent is named else None
        with self._telemetry.serving(method, _attributes(ctx, method), parent, link) as span:
            try:
                result = await call_next(ctx)
            except MCPError as exc:
                span.failed(str(exc.error.code), str(exc.error.code))
                raise
            except ValidationError:
                span.failed(str(INVALID_PARAMS), str(INVALID_PARAMS))
                raise
            except Exception as exc:
                span.failed(type(exc).__qualname__)
                raise
            if method == "tools/call" and isinstance(result, Mapping) and result.get("isError") is True:
                span.failed("tool_error")
            return result


def _attributes(ctx: Context, method: str) -> dict[str, str | int]:
    found: dict[str, str | int] = {"mcp.method.name": method, "mcp.protocol.version": ctx.protocol_version}
    if ctx.request_id is not None:
        found["jsonrpc.request.id"] = str(ctx.request_id)
    if method == "tools/call":
        found["gen_ai.operation.name"] = "execute_tool"
    if ctx.request is None:
        return found | {"network.transport": "pipe"}
    scope = ctx.request.scope
    found |= {"network.transport": "tcp", "network.protocol.name": "http"}
    found["network.protocol.version"] = str(scope.get("http_version", ""))
    found["mcp.session.id"] = connection_of(ctx.session).session_id or ""
    if (client := scope.get("client")) is not None:
        found["client.address"], found["client.port"] = str(client[0]), int(client[1])
    return found
