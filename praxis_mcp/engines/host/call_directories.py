"""The private directories of calls as plain processes: made ahead of them, and removed behind their answers.

To make one takes a visit to a thread, and to remove its four directories takes a file system with a journal several
milliseconds each on a busy machine, during which nothing is computed: together more than all the rest of such a call.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from praxis_mcp.errors import ExecutionError
from praxis_mcp.support.scratch import Scratch
from praxis_mcp.support.tasks import BackgroundTasks

FRESH_FOR = 3600.0
"""Seconds that a directory may wait for its call: cleaners of temporary files take what has not been used for days."""
REMOVAL_TIMEOUT = 10.0
"""Seconds that the last removals may take when the engine is closed."""
MOST_LEFT = 32
"""Directories of answered calls that may wait to be removed; with more, a call removes its own before its answer."""
_FOLDERS = ("home", "work", "tmp")


class CallDirectories:
    """Gives each call a directory with `home`, `work` and `tmp`, which no other call gets."""

    def __init__(self) -> None:
        self._background = BackgroundTasks()
        self._ready: tuple[Scratch, float] | None = None
        self._making = False
        self._given = 0
        self._left = 0

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Path]:
        """A fresh one, for the length of the body.

        Raises:
            ExecutionError: it cannot be made.
        """
        scratch = self._take()
        if scratch is None:
            try:
                scratch = await anyio.to_thread.run_sync(_make)
            except OSError as exc:
                raise ExecutionError(f"A directory for the call cannot be made: {exc}.") from exc
        self._given += 1
        try:
            yield scratch.path
        finally:
            if self._left < MOST_LEFT:
                self._remove_later(scratch)
            else:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(scratch.remove)

    async def close(self) -> None:
        """Remove what waits for a call, and wait for the last removals."""
        await self._background.close(REMOVAL_TIMEOUT)
        self._given = 0
        if self._ready is not None:
            (scratch, _), self._ready = self._ready, None
            await anyio.to_thread.run_sync(scratch.remove)

    def _take(self) -> Scratch | None:
        if self._ready is None:
            return None
        (scratch, made), self._ready = self._ready, None
        if time.monotonic() - made < FRESH_FOR and _is_untouched(scratch.path):
            return scratch
        self._remove_later(scratch)
        return None

    def _remove_later(self, scratch: Scratch) -> None:
        self._left += 1
        self._background.start(partial(self._renew, scratch), "remove the directory of a call")

    async def _renew(self, scratch: Scratch) -> None:
        # Not after the first: a command line that makes one call has no next.
        makes = self._ready is None and not self._making and self._given > 1
        self._making = self._making or makes
        fresh: Scratch | None = None
        try:
            with anyio.CancelScope(shield=True):
                fresh = await anyio.to_thread.run_sync(_replace, scratch, makes)
        finally:
            self._left -= 1
            if makes:
                self._making = False
        if fresh is not None:
            self._ready = fresh, time.monotonic()


def _is_untouched(directory: Path) -> bool:
    """Whether it is as it was made: commands of other calls are this user's processes, and some clean up, or leave
    things, in all of /tmp. Three looks of some microseconds each."""
    try:
        places = [directory / name for name in _FOLDERS]
        return not any(stat.S_ISLNK(place.lstat().st_mode) or os.listdir(place) for place in places)  # noqa: PTH208
    except OSError:
        return False


def _replace(used: Scratch, makes: bool) -> Scratch | None:
    """Make another, where that is wanted and works (a full disk is for the next call to report), and remove this."""
    fresh = None
    if makes:
        with suppress(OSError):
            fresh = _make()
    try:
        for name in _FOLDERS:  # empty, as most tools leave them
            (used.path / name).rmdir()
        used.path.rmdir()
    except OSError:
        used.remove()
    else:
        used.release()
    return fresh


def _make() -> Scratch:
    scratch = Scratch.make()
    try:
        for name in _FOLDERS:
            (scratch.path / name).mkdir()
    except OSError:
        scratch.remove()
        raise
    return scratch
