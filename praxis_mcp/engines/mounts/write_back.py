"""Changes of a call brought to directories of the host: all of them, or none.

First everything that will be needed is written next to its place under a name of ours, and every place is judged; then
all of it is put into place by renaming. A step that fails has all before it undone. Only what the tool saw is ever
removed: what others wrote meanwhile into a directory that the tool removed stays. Everything goes from one held
directory to the next (see `held`): what a tool swaps meanwhile is not followed.

Not promised: that a server which is killed between two steps leaves all or none.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from praxis_mcp.engines.mounts.write_back_steps import (
    GONE,
    Conflict,
    Kept,
    Overwrite,
    Place,
    Put,
    Remove,
    RemoveDirectory,
    SetMode,
    Step,
    copy_file,
)
from praxis_mcp.support.logs import logger
from praxis_mcp.support.removal import remove_entry
from praxis_mcp.support.rooted import MAX_WALK_DEPTH, Entry, HeldDirectory, descend, identity_of

STAGING = ".praxis-staging-"
"""How the names begin under which changes wait until all of them are there, and what they replace until all are in
place."""

_FILE_BITS = 0o777
_DIRECTORY_BITS = 0o3777
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a call did to one writable directory; paths are relative to it, those of directories end in a slash.

    Attributes:
        added: new entries; of a new directory all that is in it as well.
        modified: files whose content changed.
        removed: entries that are gone; of a removed directory nothing that was in it.
        seen: what the call saw in the directories that it removed, without slashes at the end.
        others: whether something changed that is in none of these: permissions, say.
        identity: device and inode of the directory that the call saw; None takes the one that is there.
    """

    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    seen: frozenset[str] = frozenset()
    others: bool = False
    identity: tuple[int, int] | None = None


class NotUndone(OSError):
    """A change failed, and what was done before it could not all be undone; says what stays where."""


class WriteBack:
    """The changes of one call, to any number of directories; a context manager that leaves nothing of ours behind.

    Args:
        mask: masks secrets in the names that are logged.
    """

    def __init__(self, mask: Callable[[str], str] = str) -> None:
        self._mask = mask
        self._prefix = f"{STAGING}{secrets.token_hex(8)}-"
        self._names = self._left_out = 0
        self._waiting: list[tuple[Place, str]] = []
        self._steps: list[Step] = []
        self._touched: set[str] = set()
        self._kept = Kept()

    def __enter__(self) -> WriteBack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place, name in self._waiting:
            try:
                with place.open() as here:
                    failure = remove_entry(here, name)
            except OSError as exc:
                failure = None if exc.errno in GONE else exc
            if failure is not None:
                shown = self._mask(os.path.join(place.path, name))  # noqa: PTH118
                logger.warning("{} cannot be removed: {}", shown, failure.strerror)
        self._waiting.clear()
        self._kept.close()

    def add(self, top: HeldDirectory, staged: HeldDirectory, changes: Changes) -> None:
        """Judge the changes of one directory, and write what they need next to its place.

        Args:
            top: the directory; open until the end.
            staged: a private directory with the new content of what was added or modified, at the same paths.
            changes: what changed.

        Raises:
            Conflict: they do not fit what is there.
            OSError: the host refuses, or its disk is full.
        """
        for path in changes.removed:
            self._plan_removal(top, path, changes.seen)
        self._left_out = 0
        self._merge(top, "", staged, _Wanted.of(changes), 0)
        if self._left_out:
            logger.warning("{} FIFOs, sockets or devices do not come back to {}", self._left_out, top.shown)

    @property
    def touched(self) -> tuple[Path, ...]:
        """The files that `commit` changes, sorted."""
        return tuple(sorted(map(Path, self._touched)))

    def commit(self) -> tuple[Path, ...]:
        """Put everything into place; the files that changed.

        Raises:
            OSError: a step failed, and all before it was undone.
            NotUndone: not all of it was.
        """
        done: list[Step] = []
        for step in self._steps:
            done.append(step)
            try:
                step.do()
            except OSError as exc:
                exc.filename = os.path.join(step.place.top.shown, step.place.path, step.name)  # noqa: PTH118
                self._undo(done, exc)
                raise
        return self.touched

    def _undo(self, done: list[Step], cause: OSError) -> None:
        left: list[str] = []
        for step in reversed(done):
            try:
                step.undo()
            except OSError as exc:
                left.append(os.path.join(step.place.top.shown, step.place.path, step.name))  # noqa: PTH118
                logger.error("{} cannot be put back: {}", self._mask(left[-1]), exc.strerror)
                if step.aside is not None:  # the only copy of what was there
                    self._waiting.remove(step.aside)
        if left:
            raise NotUndone(cause.errno, f"{cause.strerror}; not put back: {', '.join(left[:5])}", cause.filename)

    # --- what is removed

    def _plan_removal(self, top: HeldDirectory, path: str, seen: frozenset[str]) -> None:
        above, _, name = path.rstrip("/").rpartition("/")
        try:
            here = descend(top, above)
        except OSError as exc:
            if exc.errno in GONE:
                return  # gone already, or not what the tool saw there
            raise
        with here:
            status = here.look(name)
            if status is None or stat.S_ISDIR(status.st_mode) != path.endswith("/"):
                return
            place = self._place(top, above, here)
            if path.endswith("/"):
                with here.enter(name) as inner:
                    self._plan_emptying(place, path.rstrip("/"), place, inner, seen, 0)
            else:
                self._steps.append(Remove(place, name, place, self._new_name(place)))
        self._touched.add(os.path.join(top.shown, path.rstrip("/")))  # noqa: PTH118

    def _plan_emptying(
        self, aside: Place, path: str, above: Place, here: HeldDirectory, seen: frozenset[str], depth: int
    ) -> None:
        _bound(depth, here)
        place = self._place(above.top, path, here)
        for name, status in here.entries():
            inner_path = f"{path}/{name}"
            if inner_path not in seen:
                continue
            if stat.S_ISDIR(status.st_mode):
                with here.enter(name) as inner:
                    self._plan_emptying(aside, inner_path, place, inner, seen, depth + 1)
            else:
                # Out of the directory, which is to be empty.
                self._steps.append(Remove(place, name, aside, self._new_name(aside)))
        self._steps.append(RemoveDirectory(above, path.rpartition("/")[2], place))

    # --- what is new

    def _merge(self, top: HeldDirectory, path: str, staged: HeldDirectory, wanted: _Wanted, depth: int) -> None:
        with descend(top, path) as here:
            _bound(depth, here)
            place = self._place(top, path, here)
            for entry in sorted(staged.entries()):
                inner = f"{path}{entry.name}"
                try:
                    status = here.look(entry.name)
                    if stat.S_ISDIR(entry.status.st_mode):
                        self._merge_directory(place, here, inner, staged, entry, status, wanted, depth)
                    elif stat.S_ISREG(entry.status.st_mode) or stat.S_ISLNK(entry.status.st_mode):
                        self._merge_file(place, here, inner, staged, entry, status, wanted)
                    else:
                        self._left_out += 1
                except OSError as exc:
                    if exc.filename in (None, entry.name) or exc.filename.startswith(STAGING):
                        exc.filename = here.path_of(entry.name)
                    raise

    def _merge_directory(
        self,
        place: Place,
        here: HeldDirectory,
        path: str,
        staged: HeldDirectory,
        entry: Entry,
        status: os.stat_result | None,
        wanted: _Wanted,
        depth: int,
    ) -> None:
        name, mode = entry.name, stat.S_IMODE(entry.status.st_mode) & _DIRECTORY_BITS
        if status is not None and stat.S_ISDIR(status.st_mode):
            with staged.enter(name, closed=True) as inner:
                self._merge(place.top, f"{path}/", inner, wanted, depth + 1)
            if stat.S_IMODE(status.st_mode) != mode:
                self._steps.append(SetMode(place, name, mode))
            return
        if not any(found.startswith(f"{path}/") for found in wanted.files):
            return  # nothing but its own times changed, say, and it is gone
        if f"{path}/" not in wanted.added or (status is not None and path not in wanted.removed):
            raise Conflict(errno.ESTALE, "is not the directory that the tool saw", here.path_of(name))
        waiting = self._new_name(place)
        for found in self._copy_tree(staged, name, here, waiting, depth):
            self._touched.add(here.path_of(f"{name}/{found}"))
        self._steps.append(Put(place, name, waiting, self._new_name(place)))

    def _merge_file(
        self,
        place: Place,
        here: HeldDirectory,
        path: str,
        staged: HeldDirectory,
        entry: Entry,
        status: os.stat_result | None,
        wanted: _Wanted,
    ) -> None:
        name, mode = entry.name, stat.S_IMODE(entry.status.st_mode) & _FILE_BITS
        is_file = stat.S_ISREG(entry.status.st_mode)
        there = status is not None and is_file and stat.S_ISREG(status.st_mode)
        is_wanted = path in wanted.files
        if status is not None and stat.S_ISDIR(status.st_mode) and is_wanted and f"{path}/" not in wanted.removed:
            raise Conflict(errno.EISDIR, "is a directory that the tool did not see", here.path_of(name))
        if not is_wanted or (there and status is not None and _has_same_content(staged, here, entry, status)):
            # Permissions alone. Not its time: in Dagger, a file has that of whichever file of this content came first.
            if there and status is not None and stat.S_IMODE(status.st_mode) & _FILE_BITS != mode:
                self._steps.append(SetMode(place, name, mode))
                self._touched.add(here.path_of(name))
            return
        waiting = self._new_name(place)
        try:
            if is_file:
                copy_file(staged, name, here, waiting, entry.status, mode, status)
            else:
                here.make_link(waiting, staged.link_target(name))
            self._steps.append(Put(place, name, waiting, self._new_name(place)))
        except OSError as exc:
            if exc.errno not in _REFUSED or not there:
                raise
            # The file may be written, its directory not.
            self._steps.append(Overwrite(place, name, staged, here, self._kept))
            if status is not None and stat.S_IMODE(status.st_mode) & _FILE_BITS != mode:
                self._steps.append(SetMode(place, name, mode))
        self._touched.add(here.path_of(name))

    def _copy_tree(
        self, staged: HeldDirectory, name: str, here: HeldDirectory, waiting: str, depth: int
    ) -> Iterator[str]:
        _bound(depth, staged)
        mode = staged.look(name)
        here.make(waiting)
        with staged.enter(name, closed=True) as source, here.enter(waiting) as target:
            for entry in source.entries():
                if stat.S_ISDIR(entry.status.st_mode):
                    for found in self._copy_tree(source, entry.name, target, entry.name, depth + 1):
                        yield f"{entry.name}/{found}"
                elif stat.S_ISREG(entry.status.st_mode):
                    copy_file(source, entry.name, target, entry.name, entry.status, entry.status.st_mode & _FILE_BITS)
                    yield entry.name
                elif stat.S_ISLNK(entry.status.st_mode):
                    target.make_link(entry.name, source.link_target(entry.name))
                    yield entry.name
                else:
                    self._left_out += 1
        if mode is not None:
            here.set_mode(waiting, stat.S_IMODE(mode.st_mode) & _DIRECTORY_BITS)

    def _place(self, top: HeldDirectory, path: str, here: HeldDirectory) -> Place:
        return Place(top, path, identity_of(here.status))

    def _new_name(self, place: Place) -> str:
        self._names += 1
        name = f"{self._prefix}{self._names}"
        self._waiting.append((place, name))
        return name


@dataclass(frozen=True, slots=True)
class _Wanted:
    added: frozenset[str]
    files: frozenset[str]
    removed: frozenset[str]

    @classmethod
    def of(cls, changes: Changes) -> _Wanted:
        return cls(frozenset(changes.added), frozenset(changes.added + changes.modified), frozenset(changes.removed))


def _has_same_content(staged: HeldDirectory, here: HeldDirectory, entry: Entry, status: os.stat_result) -> bool:
    if entry.status.st_size != status.st_size:
        return False
    with (
        suppress(PermissionError),
        os.fdopen(staged.read(entry.name, closed=True), "rb") as one,
        os.fdopen(here.read(entry.name), "rb") as other,
    ):
        while piece := one.read(1024 * 1024):
            if piece != other.read(1024 * 1024):
                return False
        return True
    return False


def _bound(depth: int, here: HeldDirectory) -> None:
    if depth > MAX_WALK_DEPTH:
        raise OSError(errno.ENAMETOOLONG, f"is deeper than {MAX_WALK_DEPTH} directories", here.shown)
