"""Computing that is short for short values and long for long ones: where it is long, in a thread, so that the event
loop goes on with what others asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

INLINE_SIZE = 8 * 1024
"""Characters, or bytes, up to which a value is worked on where it is. A visit to a thread takes 0.1 to 0.2 ms; to check
so much JSON against a schema, or to mask it, up to three."""
COMPUTING_THREADS = 40
"""Threads that compute. They take turns with one another, and have none of those that read and write files: however
much one caller sends to be checked, no other call has to wait until a thread is free."""
_PER_VALUE = 8
_computing: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("_computing")

T = TypeVar("T")


async def compute(function: Callable[..., T], *args: Any, size: int) -> T:
    """What `function` returns for `args`: at once where they are small, else from a thread. A caller that is
    cancelled meanwhile waits for its end.

    What helps is that Python's threads take turns. A single call into C that keeps the interpreter to itself, such as
    `json.dumps`, holds the event loop up from a thread as well.

    Args:
        function: computes, and touches nothing that belongs to the event loop.
        args: what it gets; nobody may change that meanwhile.
        size: about how many bytes or characters it works on.
    """
    if size <= INLINE_SIZE:
        return function(*args)
    limiter = _computing.get(None)
    if limiter is None:
        _computing.set(limiter := anyio.CapacityLimiter(COMPUTING_THREADS))
    found = await anyio.to_thread.run_sync(_outcome, function, args, limiter=limiter)
    if isinstance(found, _Raised):
        try:
            raise found.error
        finally:
            del found  # which this frame would hold, and be held by
    return found


@dataclass(frozen=True, slots=True)
class _Raised:
    error: Exception


def _outcome(function: Callable[..., T], args: tuple[Any, ...]) -> T | _Raised:
    """What it returns or raises. An exception that a future brings from a thread holds, by its traceback, that future,
    which holds it: until garbage is collected, all that its callers have would stay, such as a call's arguments."""
    try:
        return function(*args)
    except Exception as exc:  # noqa: BLE001 - it is raised again
        return _Raised(exc)


def size_of_json(value: Any, most: int = INLINE_SIZE) -> int:
    """About how many characters a value of JSON has. No more than a little above `most` are counted, so that to ask
    takes no time."""
    size, todo = 0, [value]
    while todo and size <= most:
        part = todo.pop()
        size += _PER_VALUE
        if isinstance(part, str | bytes):
            size += len(part)
        elif isinstance(part, Mapping):
            size += _PER_VALUE * len(part)
            if size <= most:
                size += sum(len(key) for key in part if isinstance(key, str))
                todo += part.values()
        elif isinstance(part, list | tuple):
            size += _PER_VALUE * len(part)
            if size <= most:
                todo += part
    return size
