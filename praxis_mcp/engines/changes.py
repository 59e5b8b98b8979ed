"""What a call changes in writable mounts: a look before, a look after, and what can be kept of each file that differs.

The content that a file had can only be read before the call, when nobody knows yet which files it will change. So that
calls stay as fast as they are, only short files are read, only so many for one call, and what has been read is
remembered: the next call on the same mounts reads what is new there. An engine that brings changes back itself
(`praxis_mcp.engines.mounts.write_back`) knows them beforehand, and reads these alone.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from praxis_mcp.engines.file_states import (
    BY_WHICH_KNOWN,
    CHANGES_READ,
    MAX_CHANGES_DESCRIBED,
    OF_CREDENTIALS,
    Budget,
    FileChange,
    Keeps,
    Reading,
    Seen,
    Stamp,
    content_of,
    digest_of,
    is_short,
    last_change,
    stamp_of,
    state_of,
    why_unread,
)
from praxis_mcp.plans.model import Guard, Mount
from praxis_mcp.support.logs import logger
from praxis_mcp.support.rooted import HeldDirectory, identity_of, walk

MAX_COMPARED_ENTRIES = 20_000
"""Entries of all writable mounts together; where there are more, no change is reported."""
CHANGES_KEPT = 512 * 1024
"""Bytes of content that are kept of one call, before and after together."""
READ_BEFORE_FILES, READ_BEFORE_BYTES = 1000, CHANGES_READ
"""Short files that are read before one call, and their bytes; as many bytes of longer ones are hashed. That takes about
ten milliseconds, once in the life of a process."""
CHANGES_REMEMBERED = 16 * 1024 * 1024
"""Bytes of content that a process remembers."""

_SETTLED = 3_000_000_000
"""Nanoseconds after a change before what was read is remembered: within one tick of a file system's clock (2 s on FAT),
a file can change again and look the same."""
_REMEMBERED_OVERHEAD = 256


class Changed(NamedTuple):
    """The files that were created, changed or removed, sorted, and what is kept of them."""

    paths: tuple[Path, ...] = ()
    changes: tuple[FileChange, ...] = ()


@dataclass(slots=True)
class _Look:
    """All files of some mounts."""

    stamps: dict[str, Stamp] = field(default_factory=dict)
    contents: dict[str, bytes | str] = field(default_factory=dict)

    def seen(self, path: str) -> Seen:
        stamp, content = self.stamps[path], self.contents.get(path)
        return Seen(stamp, None, content) if isinstance(content, str) else Seen(stamp, content)


class ChangeKeeper:
    """What is kept of changed files, and the contents that are remembered for the next call. Of one process; may be
    used in several threads.

    Args:
        keeps: see `Keeps`.
    """

    def __init__(self, keeps: Keeps = "none") -> None:
        self.keeps: Keeps = keeps
        self._lock = threading.Lock()
        self._remembered: dict[Stamp, bytes | str] = {}
        self._size = 0

    def recall(self, stamp: Stamp) -> bytes | str | None:
        """The content of the file that has this stamp, or of a long one its hash; None where it is not remembered."""
        return self._remembered.get(stamp)

    def remember(self, stamp: Stamp, content: bytes | str, now: int) -> None:
        """Keep what a file holds for the next call, unless it may change without another stamp.

        Args:
            stamp, content: of the file; of a long one, its hash.
            now: nanoseconds since 1970, from before it was read.
        """
        if now - last_change(stamp) < _SETTLED:
            return
        with self._lock:
            before = self._remembered.pop(stamp, None)
            self._size += len(content) - len(before) if before is not None else len(content) + _REMEMBERED_OVERHEAD
            self._remembered[stamp] = content
            while self._size > CHANGES_REMEMBERED:
                oldest = next(iter(self._remembered))
                self._size -= len(self._remembered.pop(oldest)) + _REMEMBERED_OVERHEAD

    def look_at(self, paths: Iterable[Path], mask: Callable[[str], str] = str) -> Mapping[Path, Seen]:
        """The files at these paths as they are now, as far as they are there; no link is followed. Blocks.

        Args:
            paths: absolute, without links on the way.
            mask: masks secrets in a text.
        """
        found: dict[Path, Seen] = {}
        reading = Reading(mask)
        if self.keeps == "none":
            return found
        for path in sorted(paths)[:MAX_CHANGES_DESCRIBED]:
            try:
                with HeldDirectory.at(path.parent, listed=False) as here:
                    status = here.look(path.name)
                    if status is not None:
                        found[path] = reading.read(here, path.name, status)
            except OSError:  # it is gone, or a link is on the way by now
                continue
        return found

    def describe(
        self,
        before: Mapping[Path, Seen],
        after: Mapping[Path, Seen],
        roots: Iterable[Path],
        mask: Callable[[str], str] = str,
    ) -> tuple[FileChange, ...]:
        """What became of files, by two looks at them, sorted.

        Args:
            before, after: by `look_at`.
            roots: what is mounted: what is above has no say in what is kept.
            mask: masks secrets in a text.
        """
        kept = Budget(2 * MAX_CHANGES_DESCRIBED, CHANGES_KEPT if self.keeps == "text" else -1)
        tops = sorted(map(str, roots), key=len, reverse=True)
        found: list[FileChange] = []
        for path in sorted(before.keys() | after.keys())[:MAX_CHANGES_DESCRIBED]:
            reason = why_unread(_below(str(path), tops))
            states = (state_of(seen.get(path), reason, kept, mask, self.keeps) for seen in (before, after))
            found.append(FileChange(path, *states))
        return tuple(found)


NOTHING_KEPT = ChangeKeeper()


class ChangeWatch:
    """The state of writable mounts before a call, to be compared with the state after it.

    A file counts as changed when its size, modification time, permissions or inode did. What other programs write there
    in the meantime is reported as well: nothing can tell it apart. But for what no tool may change (`Guard.SHIELD`):
    settings, contracts, records. That is not looked at.
    """

    def __init__(self, mounts: tuple[_Watched, ...], before: _Look | None, keeper: ChangeKeeper) -> None:
        self._mounts = mounts
        self._before = before
        self._keeper = keeper

    @classmethod
    async def start(cls, mounts: Iterable[Mount], keeper: ChangeKeeper = NOTHING_KEPT) -> ChangeWatch:
        """Look at the writable ones among `mounts`; costs nothing where there are none."""
        writable = _watched(mounts)
        before = await anyio.to_thread.run_sync(_look_before, writable, keeper) if writable else _Look()
        return cls(writable, before, keeper)

    async def changes(self, mask: Callable[[str], str] = str) -> Changed:
        """Files created, changed or removed since.

        Args:
            mask: masks secrets in a text.
        """
        if not self._mounts or self._before is None:
            return Changed()
        return await anyio.to_thread.run_sync(self._compare, self._before, mask)

    def _compare(self, before: _Look, mask: Callable[[str], str]) -> Changed:
        keeper = self._keeper
        after: dict[Path, Seen] = {}
        reading = Reading(mask)
        unseen = set(before.stamps)
        names: set[str] = set()

        def compare(path: str, place: str, here: HeldDirectory, name: str, status: os.stat_result) -> None:
            unseen.discard(path)
            known = before.stamps.get(path)
            if known is not None and stamp_of(status)[:BY_WHICH_KNOWN] == known[:BY_WHICH_KNOWN]:
                return
            names.add(path)
            if keeper.keeps != "none" and len(after) < MAX_CHANGES_DESCRIBED:
                after[Path(path)] = reading.read(here, name, status)

        if not _visit(self._mounts, compare):
            return Changed()
        paths = tuple(map(Path, sorted(names | unseen)))
        if keeper.keeps == "none":
            return Changed(paths)
        seen = {path: before.seen(str(path)) for path in paths if str(path) in before.stamps}
        described = {path: after[path] for path in paths if path in after}
        return Changed(paths, keeper.describe(seen, described, [mount.source for mount, _ in self._mounts], mask))


_Watched = tuple[Mount, frozenset[str]]
"""A writable mount, and what no tool may change in it, as paths from there."""


def _watched(mounts: Iterable[Mount]) -> tuple[_Watched, ...]:
    mounts = tuple(mounts)
    writable = [mount for mount in mounts if mount.writable and mount.guard is Guard.NONE]
    if not writable:
        return ()
    shields = [mount.source for mount in mounts if mount.guard is Guard.SHIELD]
    return tuple(
        (mount, frozenset(str(path.relative_to(mount.source)) for path in shields if path.is_relative_to(mount.source)))
        for mount in writable
    )


def _look_before(mounts: tuple[_Watched, ...], keeper: ChangeKeeper) -> _Look | None:
    """Every file, with the content of those that may be read; None where there are too many."""
    found = _Look()
    budget, hashed = (Budget(READ_BEFORE_FILES, READ_BEFORE_BYTES) for _ in range(2))
    reads = keeper.keeps != "none"
    now = time.time_ns()
    reason = ("/", "")

    def note(path: str, place: str, here: HeldDirectory, name: str, status: os.stat_result) -> None:
        nonlocal reason
        stamp = found.stamps[path] = stamp_of(status)
        if not reads:
            return
        if reason[0] != place:  # the files of a directory come one after the other
            reason = (place, why_unread(place))
        if reason[1] or OF_CREDENTIALS.fullmatch(name):
            return
        content = keeper.recall(stamp)
        if content is None:
            if not is_short(status.st_size):
                content = digest_of(here, name, status) if hashed.takes(status.st_size) else None
            elif budget.takes(status.st_size):
                content = content_of(here, name, status)
            if content is not None:
                keeper.remember(stamp, content, now)
        if content is not None:
            found.contents[path] = content

    return found if _visit(mounts, note) else None


_Visit = Callable[[str, str, HeldDirectory, str, os.stat_result], None]
"""Gets a file's path, that of its directory below the mount, the directory, its name there, its status."""


def _visit(mounts: tuple[_Watched, ...], visit: _Visit) -> bool:
    """Show every file to `visit`; False where there are too many.

    No link is followed, not even above a mount: a tool may put one where a directory was, and what is where it leads
    is nobody's business.
    """
    seen = 0
    for mount, shielded in mounts:
        root = mount.source
        place = os.path.realpath(root) if mount.identity is None else str(root)
        try:
            status = os.lstat(place)
            if stat.S_ISREG(status.st_mode):
                with HeldDirectory.at(os.path.dirname(place), listed=False) as around:  # noqa: PTH120
                    visit(str(root), "", around, os.path.basename(place), status)  # noqa: PTH119
                continue
            top = HeldDirectory.at(place)
        except OSError:  # removed just now, closed to the server, or a link by now
            continue
        with top:
            if mount.identity not in (None, identity_of(top.status)):
                continue  # it is not what is mounted
            for path, here, (name, inner) in walk(top, leave_out=shielded, on_closed=_skip):
                seen += 1
                if seen > MAX_COMPARED_ENTRIES:
                    logger.debug(
                        "more than {} entries in writable mounts: changes are not reported", MAX_COMPARED_ENTRIES
                    )
                    return False
                if not stat.S_ISDIR(inner.st_mode):
                    visit(f"{root}/{path}", path[: -len(name)], here, name, inner)
    return True


def _skip(closed: OSError) -> None:
    """Changes in a directory that this server cannot read are not reported."""


def _below(path: str, tops: Iterable[str]) -> str:
    """A path from the directory that is mounted; of a mounted file, its name."""
    top = next((top for top in tops if path.startswith(f"{top}/")), None)
    return path[len(top) + 1 :] if top is not None else path.rpartition("/")[2]
