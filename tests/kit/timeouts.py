"""Every test ends: the hooks by which pytest-timeout's limit ends an asynchronous test cleanly.

The limit is pyproject.toml's `timeout`, or the test's own (`@pytest.mark.timeout(600)`), and bounds what the test
itself does. A synchronous test is failed by a signal. In an asynchronous one an exception out of nowhere would leave
the event loop, which all tests share, with a task that never ends, and the next fixture would wait for it for ever.
So the test is cancelled, which also runs its clean-up; the signal follows where that did not help, since the loop is
blocked. What hangs in a fixture ends the run with the stacks of all threads: pyproject.toml's `faulthandler_timeout`.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import anyio
import pytest
import pytest_timeout

UNWINDING = 30.0
"""Seconds for the clean-up of a test that was cancelled."""
LIMIT = pytest.StashKey[float]()


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> object:
    if not _is_asynchronous(item):
        return None  # as pytest-timeout does it
    item.stash[LIMIT] = settings.timeout
    return pytest_timeout.pytest_timeout_set_timer(item, settings._replace(timeout=settings.timeout + UNWINDING))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    if _is_asynchronous(pyfuncitem) and (limit := pyfuncitem.stash.get(LIMIT, None)) is not None:
        pyfuncitem.obj = _bounded(pyfuncitem.obj, limit)
    return (yield)


def _is_asynchronous(item: pytest.Item) -> bool:
    # Hypothesis' tests are not: their examples are, each in a run of its own.
    return isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj)


def _bounded(test: Callable[..., Awaitable[None]], limit: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        place: BaseException | None = None
        with anyio.move_on_after(limit) as scope:
            try:
                await test(*args, **kwargs)
            except anyio.get_cancelled_exc_class() as exc:
                place = exc
                raise
        if scope.cancelled_caught:
            raise pytest.fail.Exception(f"Timeout (>{limit:g} s) from pytest-timeout; it waited here:") from place

    return bounded
