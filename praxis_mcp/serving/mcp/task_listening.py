"""``subscriptions/listen`` with ``taskIds``: a client receives how its tasks go on (SEP-2663, "Task Status
Notifications"), by tasks of this server at once, by those of others on the same store within a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.shared.exceptions import MCPError
from mcp_types import (
    RequestId,
    ServerNotification,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
)
from pydantic import BaseModel

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.serving.access import Caller
from praxis_mcp.serving.mcp.task_calls import TaskCalls
from praxis_mcp.serving.mcp.task_methods import TaskMethods, listened, require_tasks, task_facts
from praxis_mcp.settings.sections import TaskSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import unwrapped

CHANGES_EVERY = 1.0
"""Seconds between two looks at tasks that a client listens to."""
_LOST_EACH = 5
"""With each so many of them it is looked whether the servers of those tasks live."""

Context = ServerRequestContext[Any, Any]
Listen = Callable[[Context, SubscriptionsListenRequestParams], Awaitable[SubscriptionsListenResult]]


class TaskNotification(BaseModel):
    """``notifications/tasks``."""

    method: Literal["notifications/tasks"] = "notifications/tasks"
    params: dict[str, Any]


class TaskListening:
    """Serves ``subscriptions/listen``.

    Args:
        listen: serves it as far as the specification of the protocol itself goes.
        calls, methods: have the tasks.
        settings: how often clients are asked to look.
        caller_of: who made a request.
    """

    def __init__(
        self,
        listen: Listen,
        calls: TaskCalls,
        methods: TaskMethods,
        settings: TaskSettings,
        caller_of: Callable[[Context], Caller],
    ) -> None:
        self._listen = listen
        self._calls = calls
        self._methods = methods
        self._settings = settings
        self._caller_of = caller_of

    async def __call__(self, ctx: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Serve one stream, until its client leaves or the server ends it."""
        wanted = listened(params.notifications.model_extra or {})
        if wanted is None:
            return await self._listen(ctx, params)
        require_tasks(ctx)
        caller = self._caller_of(ctx)
        ids = [task_id for task_id in wanted if await self._is_theirs(task_id, caller)]
        session = _Acknowledging(ctx.session, ids)
        result = SubscriptionsListenResult()
        own: Any = session  # all that serves a stream asks of a session
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send, ctx, ids, caller, session.has_acknowledged)
                result = await self._listen(replace(ctx, session=own), params)
                tasks.cancel_scope.cancel()
        return result

    async def _is_theirs(self, task_id: str, caller: Caller) -> bool:
        try:
            await self._methods.find(task_id, caller)
        except MCPError:
            return False
        return True

    async def _send(self, ctx: Context, ids: list[str], caller: Caller, acknowledged: anyio.Event) -> None:
        await acknowledged.wait()
        sent: dict[str, tuple[float, str]] = {}
        left, looks = list(ids), 0
        while left:
            try:
                changes = await self._calls.changes(left)
            except RecordsUnavailable as exc:
                logger.debug("tasks that a client listens to could not be looked at: {}", exc)
                changes = {}
            for task_id in list(left):
                # The first look says how things stand: it may have ended before anybody listened.
                if changes.get(task_id) != sent.get(task_id) or looks % _LOST_EACH == 0:
                    await self._send_one(ctx, task_id, caller, sent, left)
            looks += 1
            await self._calls.wait_for_change(CHANGES_EVERY)

    async def _send_one(
        self, ctx: Context, task_id: str, caller: Caller, sent: dict[str, tuple[float, str]], left: list[str]
    ) -> None:
        try:
            task = await self._methods.find(task_id, caller)
        except MCPError:  # forgotten meanwhile, or the store is out of reach: polling says which
            return
        if task.has_ended:
            left.remove(task_id)
        if sent.get(task_id) == (task.updated, task.status):
            return
        sent[task_id] = (task.updated, task.status)
        meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        notification: Any = TaskNotification(params={**task_facts(task, self._settings), "_meta": meta})
        await ctx.session.send_notification(notification, related_request_id=ctx.request_id)


class _Acknowledging:
    """A session as what serves a stream sees it: the acknowledgement names the tasks as well."""

    def __init__(self, session: ServerSession, ids: list[str]) -> None:
        self._session = session
        self._ids = ids
        self.has_acknowledged = anyio.Event()

    async def send_notification(
        self, notification: ServerNotification, related_request_id: RequestId | None = None
    ) -> None:
        if isinstance(notification, SubscriptionsAcknowledgedNotification):
            honored = notification.params.notifications.model_dump(by_alias=True, exclude_none=True)
            both = SubscriptionFilter.model_validate({**honored, "taskIds": self._ids})
            params = notification.params.model_copy(update={"notifications": both})
            notification = notification.model_copy(update={"params": params})
        await self._session.send_notification(notification, related_request_id)
        self.has_acknowledged.set()
