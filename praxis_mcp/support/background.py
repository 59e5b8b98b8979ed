"""Tasks that outlive the call which started them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from praxis_mcp.support.defects import places
from praxis_mcp.support.logs import logger


class BackgroundTasks:
    """Tasks that belong to an engine, which is used by whichever task needs it first, without being entered, and closed
    by `cleanup`. No task group can hold them: the one of the first call would end with that call.

    Each task must end by itself when its owner asks it to; `close` waits for that.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, function: Callable[[], Coroutine[Any, Any, Any]], name: str) -> None:
        """Run it in a task of its own, which sees nothing of the caller's context (ids in log lines and the like)."""
        task = asyncio.create_task(function(), name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self, timeout: float) -> None:
        """Wait until all have ended, at most so many seconds; cancel those that have not."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=timeout)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("a background task ({}) ended by an error: {}", task.get_name(), places(exc))
