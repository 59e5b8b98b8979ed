"""The servers that calls go to, each with one shared connection."""

from __future__ import annotations

import anyio

from praxis_mcp.support.background import BackgroundTasks
from praxis_mcp.upstreams.connection import UPSTREAM_CLOSE_TIMEOUT
from praxis_mcp.upstreams.spec import UpstreamSpec
from praxis_mcp.upstreams.upstream import Upstream

MOST_KEPT = 64
"""Servers without a connection that are remembered, for the sake of their back-off."""


class UpstreamPool:
    """Servers by how they are reached."""

    def __init__(self) -> None:
        self._tasks = BackgroundTasks()
        self._upstreams: dict[UpstreamSpec, Upstream] = {}

    def get(self, spec: UpstreamSpec) -> Upstream:
        """The server that is reached so; the same object for equal specifications."""
        found = self._upstreams.pop(spec, None) or Upstream(spec, self._tasks)
        self._upstreams[spec] = found  # the last one used comes last
        idle = [key for key, upstream in self._upstreams.items() if key != spec and not upstream.connected]
        for key in idle[: max(0, len(self._upstreams) - MOST_KEPT)]:
            del self._upstreams[key]
        return found

    async def close(self) -> None:
        """Close every connection; the servers may be used again."""
        async with anyio.create_task_group() as tasks:
            for upstream in self._upstreams.values():
                tasks.start_soon(upstream.close)
        self._upstreams.clear()
        await self._tasks.close(UPSTREAM_CLOSE_TIMEOUT)
