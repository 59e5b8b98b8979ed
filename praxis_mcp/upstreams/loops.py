"""Loops between servers that call each other, found by a list of the servers that a call came through.

The list travels in a request's ``_meta``. A server started by command carries the length of its chain in its
environment as well: a server that starts itself would otherwise fill the machine.
"""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from praxis_mcp.errors import ExecutionError

META_KEY = "io.github.praxis-mcp/hops"
"""In a request's `_meta`: ids of the servers that it came through, the first one first."""
VIA_KEY = "io.github.praxis-mcp/via"
"""In a listed tool's `_meta`: ids of the servers that it came through, its own one first."""
DEPTH_VARIABLE = "_PRAXIS_MCP_DEPTH"
"""Holds how many servers deep a server was started by command."""
MOST_HOPS = 8
_MOST_ID = 64

_current: ContextVar[tuple[str, ...]] = ContextVar("hops", default=())


@functools.cache
def server_id() -> str:
    """This process, among servers."""
    return uuid.uuid4().hex


def read_hops(meta: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The servers that a request came through; none where it does not say."""
    return _read(meta, META_KEY)


def read_via(meta: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The servers that a listed tool came through; none where it does not say."""
    return _read(meta, VIA_KEY)


@contextmanager
def continuing(hops: tuple[str, ...]) -> Iterator[None]:
    """While a request that came through those servers is served, in this task.

    Raises:
        ExecutionError: it came through this one already, or through too many.
    """
    if server_id() in hops:
        raise ExecutionError(
            "This call came back to the server that it started from: two servers republish each other's tools.",
            remedy="Exclude the tools that go in a circle (upstreams.NAME.exclude in the settings).",
        )
    if len(hops) >= MOST_HOPS:
        raise ExecutionError(
            f"This call came through {len(hops)} servers already, and goes no further.",
            remedy="Let a server near its start republish the tool directly.",
        )
    token = _current.set(hops)
    try:
        yield
    finally:
        _current.reset(token)


def outgoing_meta() -> dict[str, Any]:
    """The `_meta` of a request that this server sends."""
    return {META_KEY: [*_current.get(), server_id()]}


def child_depth() -> int:
    """How many servers deep a server that is started now would be.

    Raises:
        ExecutionError: too deep.
    """
    text = os.environ.get(DEPTH_VARIABLE, "0")
    depth = int(text) + 1 if text.isdecimal() else 1
    if depth > MOST_HOPS:
        raise ExecutionError(
            f"{MOST_HOPS} servers have started each other by command, and this one starts no further.",
            remedy="See whether a server's command starts a server with the same settings.",
        )
    return depth


def _read(meta: Mapping[str, Any] | None, key: str) -> tuple[str, ...]:
    value = (meta or {}).get(key)
    if not isinstance(value, list):
        return ()
    return tuple(str(item)[:_MOST_ID] for item in value[: 2 * MOST_HOPS])
