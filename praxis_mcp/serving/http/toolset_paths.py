"""Toolsets by address: ``/mcp/NAME`` is ``/mcp`` with the tools of one toolset, and ``/sse/NAME`` is ``/sse``."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from praxis_mcp.serving.access import SCOPE_KEY, Caller
from praxis_mcp.serving.toolsets import TOOLSET_KEY, Toolsets, UnknownToolset


class ToolsetPaths:
    """ASGI middleware, in front of all that goes by a request's path: notes the toolset of the address.

    Args:
        app: gets the requests.
        served_at: path → the path of its own application; None where what is below it has applications of its own.
    """

    def __init__(self, app: ASGIApp, served_at: Mapping[str, str | None]) -> None:
        self._app = app
        self._served_at = served_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: str = scope.get("path", "")
        for base, target in self._served_at.items():
            name = path.removeprefix(f"{base}/").partition("/")[0] if path.startswith(f"{base}/") else ""
            if name:
                scope = {**scope, TOOLSET_KEY: name}
                if target is not None and path == f"{base}/{name}":
                    scope |= {"path": target, "raw_path": target.encode()}
                break
        await self._app(scope, receive, send)


class KnownToolsets:
    """ASGI middleware, behind authentication, that answers 404 where there is no such toolset for this caller."""

    def __init__(self, app: ASGIApp, toolsets: Toolsets) -> None:
        self._app = app
        self._toolsets = toolsets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        requested: str | None = scope.get(TOOLSET_KEY)
        caller: Caller | None = scope.get(SCOPE_KEY)
        try:
            self._toolsets.view(requested, caller.toolsets if caller is not None else None)
        except UnknownToolset as exc:
            await PlainTextResponse(f"{exc}\n", status_code=404)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
