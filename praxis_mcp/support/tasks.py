"""Tasks that outlive the call which started them, and exceptions out of task groups."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from praxis_mcp.support.logs import logger, places


class BackgroundTasks:
    """Tasks of an engine, which the first task that needs it starts, and `cleanup` closes. No task group can hold them:
    the one of the first call would end with that call.

    Each task must end by itself when its owner says so; `close` waits for that.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """How many have not ended."""
        return len(self._tasks)

    def __bool__(self) -> bool:
        return True

    def start(self, function: Callable[[], Coroutine[Any, Any, Any]], name: str) -> None:
        """Run it in a task of its own, which sees nothing of the caller's context (ids in log lines and the like)."""
        task = asyncio.create_task(function(), name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self, timeout: float) -> None:
        """Wait until all have ended, and what they have started meanwhile, at most so many seconds; cancel those that
        have not."""
        limit = time.monotonic() + timeout
        while self._tasks and (left := limit - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        late = set(self._tasks)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=timeout)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("a background task ({}) ended by an error: {}", task.get_name(), places(exc))


@contextmanager
def unwrapped() -> Iterator[None]:
    """Around a task group: an exception that leaves it alone leaves as itself, with its own cause, and not as a group
    of one, so that a caller can catch it by its type."""
    try:
        yield
    except BaseExceptionGroup as group:
        found = leaves(group)
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        raise


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group and the groups within it; of any other exception, itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in leaves(each)]


def resolve(waiting: Sequence[asyncio.Future[None]]) -> None:
    """Have futures of any event loops be done, from any thread."""
    for loop in {future.get_loop() for future in waiting}:
        with suppress(RuntimeError):  # it has ended, and nobody waits any more
            loop.call_soon_threadsafe(settle, *(future for future in waiting if future.get_loop() is loop))


def settle(*futures: asyncio.Future[None]) -> None:
    """Have futures be done that are not, from their own loop."""
    for future in futures:
        if not future.done():
            future.set_result(None)
