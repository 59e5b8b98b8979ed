"""Turns of calls whose tools see copies of writable mounts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from praxis_mcp.plans.model import Mount


class MountLocks:
    """Lets one call at a time have a writable host path, or any path inside or around it.

    Two calls that changed the same directory at once would undo each other's changes when they are written back, and a
    directory that changes while it is read is copied half changed, or refused.
    """

    def __init__(self) -> None:
        self._held: list[Path] = []
        self._released = anyio.Condition()

    @asynccontextmanager
    async def hold(self, mounts: Iterable[Mount]) -> AsyncIterator[None]:
        """Hold the writable ones of the mounts; waits until no other call holds any of them."""
        wanted = [real_source(mount) for mount in mounts if mount.writable]
        if not wanted:
            yield
            return
        async with self._released:
            while any(_overlap(one, other) for one in wanted for other in self._held):
                await self._released.wait()
            self._held += wanted
        try:
            yield
        finally:
            for path in wanted:
                self._held.remove(path)
            with anyio.CancelScope(shield=True):
                async with self._released:
                    self._released.notify_all()

    @asynccontextmanager
    async def hold_while_read(self, mount: Mount, own: Iterable[Mount]) -> AsyncIterator[None]:
        """Wait until no call writes changes back to where a read-only mount is; only while it is brought in.

        `own`: all mounts of the call, whose writable ones it holds already.
        """
        path = real_source(mount)
        held = (real_source(item) for item in own if item.writable)
        if any(_overlap(path, other) for other in held):
            yield
            return
        async with self.hold([Mount(mount.source, mount.target, writable=True)]):
            yield


def real_source(mount: Mount) -> Path:
    """Where a mount really is, links resolved."""
    return Path(os.path.realpath(mount.source))


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents
