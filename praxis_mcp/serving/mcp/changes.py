"""How every client learns that the list of tools has changed."""

from __future__ import annotations

from typing import Any

import anyio
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp_types import NotificationParams

from praxis_mcp.contracts.catalog.catalog import CatalogChange
from praxis_mcp.support.logs import logger
from praxis_mcp.support.mcp_sdk import connection_of

NOTIFY_TIMEOUT = 5.0
"""Seconds that one client may take to take a notification."""


class ChangeNotifier:
    """Sends ``notifications/tools/list_changed``.

    Clients from 2026-07-28 on get it on the ``subscriptions/listen`` streams that they open (`listen`). Older ones
    get it on their own connection, which the SDK does not list: each is remembered when it says
    ``notifications/initialized`` and forgotten when it ends.
    """

    def __init__(self) -> None:
        self._bus = InMemorySubscriptionBus()
        self._sessions: dict[Connection, ServerSession] = {}
        self._being_notified: set[Connection] = set()
        self._changed = anyio.Event()
        self.listen = ListenHandler(self._bus)

    @property
    def legacy_sessions(self) -> int:
        """Clients of the older era that are connected now."""
        return len(self._sessions)

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
        if connection not in self._sessions:
            self._sessions[connection] = ctx.session
            connection.exit_stack.callback(self._sessions.pop, connection, None)

    async def run(self) -> None:
        """Notify clients of changes, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                await self._bus.publish(ToolsListChanged())
                # Who has not taken the last notification yet learns all that has changed from that one.
                for connection in self._sessions.keys() - self._being_notified:
                    tasks.start_soon(self._notify, connection, self._sessions[connection])

    def close(self) -> None:
        """End the open listen streams, as the specification has a server do before it goes."""
        self.listen.close()

    async def _notify(self, connection: Connection, session: ServerSession) -> None:
        self._being_notified.add(connection)
        try:
            with anyio.move_on_after(NOTIFY_TIMEOUT) as scope:
                await session.send_tool_list_changed()
        finally:
            self._being_notified.discard(connection)
        if scope.cancelled_caught:
            logger.warning("a client did not take a notification within {:g} s", NOTIFY_TIMEOUT)
