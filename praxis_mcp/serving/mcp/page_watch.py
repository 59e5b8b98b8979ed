"""Clients that stop at a page of ``tools/list``, and so miss the tools behind it."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp_types import Implementation, ListToolsResult

from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.support.logs import logger
from praxis_mcp.support.mcp_sdk import connection_of
from praxis_mcp.support.text import counted

_MAX_CLIENTS = 256
"""Clients with a page left to request that are remembered; beyond that, the one with the oldest
request is forgotten."""


@dataclass(slots=True)
class _Open:
    cursor: str
    shown: int


class PageWatch:
    """Remembers who got a page that is not the last, and logs it when they go on without the next one.

    A client may still request the next page at any time; but one that calls a tool, or begins the list again, has gone
    on. A client is a connection; from 2026-07-28 on, where every request stands alone, it is a caller with the name
    that their client gives itself. Each is logged once.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Hashable, _Open] = OrderedDict()
        self._warned: OrderedDict[Hashable, None] = OrderedDict()

    def listed(
        self, ctx: ServerRequestContext[Any, Any], caller: str, cursor: str | None, page: ListToolsResult
    ) -> None:
        """A client gets a page, for which it sent `cursor`."""
        key = _client(ctx, caller)
        before = self._open.pop(key, None)
        if before is not None and cursor is None:
            self._stopped(ctx, key, before)
        if page.next_cursor is not None:
            self._open[key] = _Open(page.next_cursor, len(page.tools) + (before.shown if before and cursor else 0))
            if len(self._open) > _MAX_CLIENTS:
                self._open.popitem(last=False)

    def called(self, ctx: ServerRequestContext[Any, Any], caller: str) -> None:
        """A client calls a tool."""
        if self._open and (found := self._open.pop(key := _client(ctx, caller), None)) is not None:
            self._stopped(ctx, key, found)

    def _stopped(self, ctx: ServerRequestContext[Any, Any], key: Hashable, found: _Open) -> None:
        if key in self._warned:
            return
        self._warned[key] = None
        if len(self._warned) > _MAX_CLIENTS:
            self._warned.popitem(last=False)
        name = client_name(ctx)
        logger.warning(
            "{} took {} and did not ask for the next page, so its model misses the others: raise "
            "server.page_size, or serve fewer tools",
            f"the client {name}" if name else "a client",
            counted(found.shown, "tool"),
        )


def client_name(ctx: ServerRequestContext[Any, Any]) -> str:
    """Name and version of the program that made a request, as it gives them; empty where it gives none."""
    info = _info(ctx)
    return f"{info.name[:64]} {info.version[:32]}" if info is not None else ""


def _info(ctx: ServerRequestContext[Any, Any]) -> Implementation | None:
    params = ctx.session.client_params
    return params.client_info if params is not None else None


def _client(ctx: ServerRequestContext[Any, Any], caller: str) -> Hashable:
    if not Dialect(ctx.protocol_version).modern:
        return weakref.ref(connection_of(ctx.session))
    info = _info(ctx)
    return (caller, info.name, info.version) if info is not None else (caller,)
