"""The one way in which tests wait for what sends no event: they look again and again, for a bounded time."""

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

WITHIN = 60.0
"""Seconds within which a condition comes true on a machine with twenty times its load."""
EVERY = 0.02
"""Seconds between two looks."""


async def until(
    condition: Callable[[], T | Awaitable[T]], *, within: float = WITHIN, every: float = EVERY, what: str = ""
) -> T:
    """Wait for a condition, and return the first true value that it gave.

    Args:
        condition: a function or coroutine function; each call of a coroutine function is bounded by `within` too.
        within: seconds.
        every: seconds between two looks.
        what: what is waited for; where it is not said, the failure quotes the condition's place.

    Raises:
        AssertionError: it stayed false; with its last value.
    """
    found: T | None = None
    with anyio.move_on_after(within):
        while True:
            given = condition()
            found = await given if inspect.isawaitable(given) else given
            if found:
                return found
            await anyio.sleep(every)
    raise AssertionError(_failure(condition, within, what, found))


def until_blocking(condition: Callable[[], T], *, within: float = WITHIN, every: float = EVERY, what: str = "") -> T:
    """`until`, for tests and clean-ups without an event loop."""
    limit = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() >= limit:
            raise AssertionError(_failure(condition, within, what, found))
        time.sleep(every)
    return found


def _failure(condition: Callable[[], object], within: float, what: str, found: object) -> str:
    code = getattr(condition, "__code__", None)
    place = f"the condition at {code.co_filename}:{code.co_firstlineno}" if code else repr(condition)
    return f"not within {within:g} s: {what or place}; last seen: {found!r}"
