"""Which files in writable mounts a call created, changed or removed: a look before, a look after."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import anyio.to_thread

from praxis_mcp.plans.model import Guard, Mount
from praxis_mcp.support.logs import logger
from praxis_mcp.support.rooted import HeldDirectory, identity_of, walk

MAX_COMPARED_ENTRIES = 20_000
"""Entries of all writable mounts together; where there are more, no change is reported."""

_Stamp = tuple[int, int, int, int]
_State = dict[str, _Stamp]


class ChangeWatch:
    """The state of writable mounts before a call, to be compared with the state after it.

    A file counts as changed when its size, modification time, permissions or inode did. What other programs write there
    in the meantime is reported as well: nothing can tell it apart.
    """

    def __init__(self, mounts: tuple[Mount, ...], before: _State | None) -> None:
        self._mounts = mounts
        self._before = before

    @classmethod
    async def start(cls, mounts: Iterable[Mount]) -> ChangeWatch:
        """Look at the writable ones among `mounts`; costs nothing where there are none."""
        writable = tuple(mount for mount in mounts if mount.writable and mount.guard is Guard.NONE)
        return cls(writable, await anyio.to_thread.run_sync(_look, writable) if writable else {})

    async def changes(self) -> tuple[Path, ...]:
        """Files created, changed or removed since, sorted."""
        if not self._mounts or self._before is None:
            return ()
        after = await anyio.to_thread.run_sync(_look, self._mounts)
        if after is None:
            return ()
        before = self._before
        names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        return tuple(Path(name) for name in sorted(names))


def _skip(closed: OSError) -> None:
    """Changes in a directory that this server cannot read are not reported."""


def _look(mounts: tuple[Mount, ...]) -> _State | None:
    """Size, modification time and inode of every file; None where there are too many.

    No link is followed, not even above a mount: a tool may put one where a directory was, and what is where it leads
    is nobody's business.
    """
    state: _State = {}
    seen = 0
    for mount in mounts:
        root = mount.source
        place = os.path.realpath(root) if mount.identity is None else str(root)
        try:
            status = os.lstat(place)
            if stat.S_ISREG(status.st_mode):
                state[str(root)] = _stamp(status)
                continue
            top = HeldDirectory.at(place)
        except OSError:  # removed just now, closed to the server, or a link by now
            continue
        with top:
            if mount.identity not in (None, identity_of(top.status)):
                continue  # it is not what is mounted
            for path, _, (_, inner) in walk(top, on_closed=_skip):
                seen += 1
                if seen > MAX_COMPARED_ENTRIES:
                    logger.debug(
                        "more than {} entries in writable mounts: changes are not reported", MAX_COMPARED_ENTRIES
                    )
                    return None
                if not stat.S_ISDIR(inner.st_mode):
                    state[f"{root}/{path}"] = _stamp(inner)
    return state


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_size, status.st_mtime_ns, status.st_mode, status.st_ino
