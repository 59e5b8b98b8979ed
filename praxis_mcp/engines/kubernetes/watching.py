"""An object of the cluster that is waited for: looked at, watched, and looked at again whatever becomes of a watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import anyio

from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal, WatchExpired, may_pass
from praxis_mcp.engines.kubernetes.client import Cluster

LOOK_AGAIN = 0.2
"""Seconds until an object is looked at again whose watch has ended."""
WATCH_FOR = 20.0
"""Seconds for one watch, which may have been lost without a word; then the object is looked at."""

Matches = Callable[[Mapping[str, Any]], bool]


async def watch_until(
    cluster: Cluster, path: Callable[[str], str], name: str, matches: Matches, *, looks: int = 1
) -> None:
    """Watch an object until it matches; the caller bounds the time. A watch only saves time: whatever becomes of one,
    the object is looked at again.

    Args:
        cluster: the cluster.
        path: of an object of its kind, and, of the empty name, of their list.
        name: its name.
        matches: what is waited for; sees each state of it.
        looks: how often it may be looked at in vain, one time after the other.

    Raises:
        Refusal: among others, `Refusal.is_missing`: it is gone.
        ClusterLost: as the cluster's own.
    """
    in_vain = 0
    while True:
        try:
            found = await cluster.get(path(name))
        except (Refusal, ClusterLost) as exc:
            in_vain += 1
            if in_vain >= looks or not may_pass(exc):
                raise
        else:
            in_vain = 0
            if matches(found):
                return
            try:
                with anyio.move_on_after(WATCH_FOR):
                    version = str(found["metadata"].get("resourceVersion", ""))
                    if await _watch(cluster, path(""), name, version, matches):
                        return
            except (Refusal, ClusterLost, WatchExpired) as exc:
                if not may_pass(exc):
                    raise
        await anyio.sleep(LOOK_AGAIN * 2**in_vain)


async def _watch(cluster: Cluster, path: str, name: str, version: str, matches: Matches) -> bool:
    query: dict[str, str | int] = {
        "fieldSelector": f"metadata.name={name}",
        "resourceVersion": version,
        "timeoutSeconds": int(WATCH_FOR),
    }
    async with aclosing(cluster.watch(path, query)) as events:
        async for kind, found in events:
            matched = matches(found)
            if kind == "DELETED":
                raise Refusal(404, "NotFound", f"{name} was removed")
            if matched:
                return True
    return False
