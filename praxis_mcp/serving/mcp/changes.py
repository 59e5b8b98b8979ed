"""How every client learns that the list of tools has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp_types import NotificationParams, SubscriptionsListenRequestParams, SubscriptionsListenResult

from praxis_mcp.contracts.catalog.catalog import CatalogChange
from praxis_mcp.support.logs import logger
from praxis_mcp.support.mcp_sdk import connection_of

NOTIFY_TIMEOUT = 5.0
"""Seconds that one client may take to take a notification."""


MOST_AUDIENCES = 256
"""Sets of toolsets whose clients are notified of their own changes alone; those of further sets of every change."""

Names = frozenset[str] | None
"""Toolsets; None is every tool."""


class _Audience:
    """The clients that see the same tools."""

    def __init__(self, names: Names, shown: tuple[object, ...] | None) -> None:
        self.names = names
        self.shown = shown
        self.bus = InMemorySubscriptionBus()
        self.listen = ListenHandler(self.bus)
        self.sessions: dict[Connection, ServerSession] = {}


class ChangeNotifier:
    """Sends ``notifications/tools/list_changed`` to those whose tools have changed.

    Clients from 2026-07-28 on get it on the ``subscriptions/listen`` streams that they open (`listen`). Older ones
    get it on their own connection, which the SDK does not list: each is remembered when it says
    ``notifications/initialized`` and forgotten when it ends.

    Args:
        names_of: the toolsets of the client that sends something.
        shown: what clients of some toolsets see now; None where it cannot be known yet.
    """

    def __init__(
        self,
        names_of: Callable[[ServerRequestContext[Any, Any]], Names] = lambda _: None,
        shown: Callable[[Names], tuple[object, ...] | None] = lambda _: None,
    ) -> None:
        self._names_of = names_of
        self._shown = shown
        self._audiences: dict[Names, _Audience] = {}
        self._being_notified: set[Connection] = set()
        self._changed = anyio.Event()
        self._is_closed = False

    @property
    def legacy_sessions(self) -> int:
        """Clients of the older era that are connected now."""
        return sum(len(audience.sessions) for audience in self._audiences.values())

    async def listen(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one ``subscriptions/listen`` stream, until its client leaves or `close` is called."""
        return await self._audience(ctx).listen(ctx, params)

    def _audience(self, ctx: ServerRequestContext[Any, Any]) -> _Audience:
        names = self._names_of(ctx)
        if names not in self._audiences:
            if len(self._audiences) >= MOST_AUDIENCES:
                names = None
            audience = _Audience(names, None if names is None else self._shown(names))
            if self._is_closed:
                audience.listen.close()
            return self._audiences.setdefault(names, audience)
        return self._audiences[names]

    async def on_change(self, change: CatalogChange) -> None:
        """Log what has changed, and announce it; waits for no client."""
        logger.info(
            "tools changed: {} added, {} changed, {} removed",
            len(change.added),
            len(change.changed),
            len(change.removed),
        )
        self.changed()

    def changed(self) -> None:
        """The list of tools has changed, whatever it was. Must be called on the event loop."""
        self._changed.set()

    async def on_initialized(self, ctx: ServerRequestContext[Any, Any], params: NotificationParams) -> None:
        """Remember the session of a client of the older era."""
        # A session would outlive its connection in a list of ours.
        connection = connection_of(ctx.session)
        sessions = self._audience(ctx).sessions
        if connection not in sessions:
            sessions[connection] = ctx.session
            connection.exit_stack.callback(sessions.pop, connection, None)

    async def run(self) -> None:
        """Notify clients of changes, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                for audience in list(self._audiences.values()):
                    await self._tell(audience, tasks)

    def close(self) -> None:
        """End the open listen streams, as the specification has a server do before it goes."""
        self._is_closed = True
        for audience in self._audiences.values():
            audience.listen.close()

    async def _tell(self, audience: _Audience, tasks: TaskGroup) -> None:
        if audience.names is not None:
            before, audience.shown = audience.shown, self._shown(audience.names)
            # By identity: what has changed is another object.
            if before is not None and audience.shown is not None and _same(before, audience.shown):
                return
        await audience.bus.publish(ToolsListChanged())
        # Who has not taken the last notification yet learns all that has changed from that one.
        for connection in audience.sessions.keys() - self._being_notified:
            tasks.start_soon(self._notify, connection, audience.sessions[connection])

    async def _notify(self, connection: Connection, session: ServerSession) -> None:
        self._being_notified.add(connection)
        try:
            with anyio.move_on_after(NOTIFY_TIMEOUT) as scope:
                await session.send_tool_list_changed()
        finally:
            self._being_notified.discard(connection)
        if scope.cancelled_caught:
            logger.warning("a client did not take a notification within {:g} s", NOTIFY_TIMEOUT)


def _same(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    return len(before) == len(now) and all(old is new for old, new in zip(before, now, strict=True))
