"""Computing that is short for short values and long for long ones: where it is long, in a thread, so that the event
loop goes on with what others asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread

INLINE_SIZE = 32 * 1024
"""Characters, or bytes, up to which a value is worked on where it is. A visit to a thread takes 0.1 to 0.2 ms; to mask
or write so much as JSON, or to compress it, about as long."""

T = TypeVar("T")


async def compute(function: Callable[..., T], *args: Any, size: int) -> T:
    """What `function` returns for `args`: at once where they are small, else from a thread. A caller that is
    cancelled meanwhile waits for its end.

    Args:
        function: computes, and touches nothing that belongs to the event loop.
        args: what it gets; nobody may change that meanwhile.
        size: about how many bytes or characters it works on.
    """
    if size <= INLINE_SIZE:
        return function(*args)
    return await anyio.to_thread.run_sync(function, *args)
