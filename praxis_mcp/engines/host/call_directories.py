"""The private directories of calls as plain processes: made ahead of them, and removed behind their answers.

To make one takes a visit to a thread, and to remove its four directories takes a file system with a journal several
milliseconds each on a busy machine, during which nothing is computed: together more than all the rest of such a call.
One in which a call has changed nothing is as good as a fresh one, and serves the next call.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
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
MOST_READY = 8
"""Directories that may wait for calls."""
SETTLED_AFTER = 0.1
"""Seconds after which each change shows in a directory's time of change, which comes from a clock that ticks."""
_FOLDERS = ("home", "work", "tmp")

_Stamps = tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Directory:
    """One, with what it was like when it was made, and when that was, by `time.monotonic`.

    Attributes:
        is_settled: whether it was bare when each change since has shown in its stamps.
    """

    scratch: Scratch
    stamps: _Stamps | None
    made: float
    is_settled: bool = False

    def is_fresh(self, since: float) -> bool:
        """Whether it is still as it was made, and cleaners of temporary files have not come near it.

        Args:
            since: when it was given to whom may have changed it, by `time.monotonic`.
        """
        place = self.scratch.path
        if time.monotonic() - self.made >= FRESH_FOR or self.stamps is None or _stamps(place) != self.stamps:
            return False
        if self.is_settled or since - self.made > SETTLED_AFTER:
            return True
        looked = time.monotonic()
        if not _is_bare(place):
            return False
        self.is_settled = looked - self.made > SETTLED_AFTER
        return True


class CallDirectories:
    """Gives each call a directory with `home`, `work` and `tmp`, in which no other call has changed anything."""

    def __init__(self) -> None:
        self._background = BackgroundTasks()
        self._ready: list[_Directory] = []
        self._making = False
        self._given = 0
        self._left = 0

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Path]:
        """A fresh one, for the length of the body.

        Raises:
            ExecutionError: it cannot be made.
        """
        held = self._take()
        if held is None:
            try:
                held = await anyio.to_thread.run_sync(_make)
            except OSError as exc:
                raise ExecutionError(f"A directory for the call cannot be made: {exc}.") from exc
        self._given += 1
        since = time.monotonic()
        is_over = False  # else something of the call may live on, if it could not be killed
        try:
            yield held.scratch.path
            is_over = True
        finally:
            if is_over and len(self._ready) < MOST_READY and held.is_fresh(since):
                self._ready.append(held)
            elif self._left < MOST_LEFT:
                self._remove_later(held.scratch)
            else:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(held.scratch.remove)

    async def close(self) -> None:
        """Remove what waits for a call, and wait for the last removals."""
        await self._background.close(REMOVAL_TIMEOUT)
        self._given = 0
        while self._ready:
            await anyio.to_thread.run_sync(self._ready.pop().scratch.remove)

    def _take(self) -> _Directory | None:
        while self._ready:
            found = self._ready.pop()
            # Commands of other calls are this user's processes, and some clean up, or leave things, in all of /tmp.
            if found.is_fresh(found.made):
                return found
            self._remove_later(found.scratch)
        return None

    def _remove_later(self, scratch: Scratch) -> None:
        self._left += 1
        self._background.start(partial(self._renew, scratch), "remove the directory of a call")

    async def _renew(self, scratch: Scratch) -> None:
        # Not after the first: a command line that makes one call has no next.
        makes = not self._ready and not self._making and self._given > 1
        self._making = self._making or makes
        fresh: _Directory | None = None
        try:
            with anyio.CancelScope(shield=True):
                fresh = await anyio.to_thread.run_sync(_replace, scratch, makes)
        finally:
            self._left -= 1
            if makes:
                self._making = False
        if fresh is not None:
            self._ready.append(fresh)


def _stamps(directory: Path) -> _Stamps | None:
    """What tells whether anything was done in a directory or its folders, or to them: no call sets the time of change
    back. None where one is gone. Four looks of some microseconds each."""
    try:
        found = [os.lstat(place) for place in _places(directory)]
    except OSError:
        return None
    return tuple((status.st_ino, status.st_ctime_ns, status.st_mode, status.st_uid, status.st_gid) for status in found)


def _is_bare(directory: Path) -> bool:
    """Whether nothing is in its folders, and nothing of a user's is attached to any of them."""
    top, *folders = _places(directory)
    try:
        attached = (name for place in (top, *folders) for name in os.listxattr(place))
        return not any(os.listdir(place) for place in folders) and all(  # noqa: PTH208
            name.startswith("security.") for name in attached
        )
    except (OSError, AttributeError):  # macOS has no listxattr
        return False


def _places(directory: Path) -> tuple[str, ...]:
    return str(directory), *(f"{directory}/{name}" for name in _FOLDERS)


def _replace(used: Scratch, makes: bool) -> _Directory | None:
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


def _make() -> _Directory:
    scratch = Scratch.make()
    try:
        for name in _FOLDERS:
            (scratch.path / name).mkdir()
    except OSError:
        scratch.remove()
        raise
    return _Directory(scratch, _stamps(scratch.path), time.monotonic())
