"""The steps by which changes come to the host, each of which can be undone.

A step judges what it finds when it is done, in a directory that it knows again, and remembers what undoing it needs.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from praxis_mcp.support.rooted import HeldDirectory, descend, identity_of

GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What looking for an entry fails with that is not there, or not what it was."""
_COPY_PIECE = 1024 * 1024
_ZEROS = bytes(256 * 1024)


class Conflict(OSError):
    """The host's files are not what the call saw, so that its changes do not fit them; nothing was written."""


@dataclass(slots=True, eq=False)
class Place:
    """A directory below a held one, known again by device and inode."""

    top: HeldDirectory
    path: str
    identity: tuple[int, int]

    def open(self) -> HeldDirectory:
        found = descend(self.top, self.path)
        if identity_of(found.status) != self.identity:
            found.close()
            raise Conflict(errno.ESTALE, "was replaced by another directory", os.path.join(self.top.shown, self.path))  # noqa: PTH118
        return found


class Step(Protocol):
    """One change.

    Attributes:
        place, name: the entry.
    """

    place: Place
    name: str

    @property
    def aside(self) -> tuple[Place, str] | None:
        """Where what was there before is once it is done; None where that is kept elsewhere."""
        ...

    def do(self) -> None: ...
    def undo(self) -> None: ...


class Put:
    """What waits goes to its place, and what is there aside."""

    def __init__(self, place: Place, name: str, waiting: str, aside: str) -> None:
        self.place, self.name = place, name
        self._waiting = waiting
        self.aside = (place, aside)
        self._replaced = self._placed = False

    def do(self) -> None:
        with self.place.open() as here:
            status = here.look(self.name)
            if status is not None:
                if stat.S_ISDIR(status.st_mode):
                    raise Conflict(errno.EISDIR, "is a directory that is not empty")
                self._replaced = True
                # Its own name lasts until the new file has it, so that nobody finds none.
                try:
                    here.add_name(self.name, self.aside[1])
                except OSError:  # a file system without hard links, or another user's file
                    here.move(self.name, here, self.aside[1])
            here.move(self._waiting, here, self.name)
            self._placed = True

    def undo(self) -> None:
        with self.place.open() as here:
            if self._placed:
                here.move(self.name, here, self._waiting)
            if self._replaced and here.look(self.aside[1]) is not None:
                here.move(self.aside[1], here, self.name)
                with suppress(FileNotFoundError):  # renaming one name of a file to another of the same does nothing
                    here.remove(self.aside[1])


class Remove:
    """A file goes aside."""

    def __init__(self, place: Place, name: str, aside: Place, aside_name: str) -> None:
        self.place, self.name = place, name
        self.aside = (aside, aside_name)
        self._done = False

    def do(self) -> None:
        with self.place.open() as here, self.aside[0].open() as there:
            status = here.look(self.name)
            if status is None or stat.S_ISDIR(status.st_mode):
                return
            here.move(self.name, there, self.aside[1])
            self._done = True

    def undo(self) -> None:
        if self._done:
            with self.place.open() as here, self.aside[0].open() as there:
                there.move(self.aside[1], here, self.name)


class RemoveDirectory:
    """A directory goes, if nothing is in it."""

    aside = None

    def __init__(self, place: Place, name: str, itself: Place) -> None:
        self.place, self.name = place, name
        self._itself = itself
        self._was: os.stat_result | None = None

    def do(self) -> None:
        with self.place.open() as here:
            status = here.look(self.name)
            try:
                here.remove_empty(self.name)
            except OSError as exc:
                if exc.errno in (*GONE, errno.ENOTEMPTY, errno.EEXIST):  # somebody else has written into it
                    return
                raise
            self._was = status

    def undo(self) -> None:
        if self._was is None:
            return
        with self.place.open() as here:
            here.make(self.name)
            with here.enter(self.name) as made:
                made.set_owner(self._was)
                self._itself.identity = identity_of(made.status)
            here.set_mode(self.name, stat.S_IMODE(self._was.st_mode))


class SetMode:
    """Other permissions."""

    aside = None

    def __init__(self, place: Place, name: str, mode: int) -> None:
        self.place, self.name = place, name
        self._mode = mode
        self._was: int | None = None

    def do(self) -> None:
        with self.place.open() as here:
            status = here.look(self.name)
            if status is not None:
                here.set_mode(self.name, self._mode)
                self._was = stat.S_IMODE(status.st_mode)

    def undo(self) -> None:
        if self._was is not None:
            with self.place.open() as here:
                here.set_mode(self.name, self._was)


class Kept:
    """Contents of files, kept one after the other in one file without a name: with one for each, many would leave no
    descriptor to undo them with."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None

    def keep(self, descriptor: int) -> tuple[int, int]:
        """Keep what a file holds, and close it; where that is here.

        Raises:
            OSError: it cannot be read, or the disk is full.
        """
        with os.fdopen(descriptor, "rb") as file:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lasts until `close`
            start = self._file.seek(0, os.SEEK_END)
            shutil.copyfileobj(file, self._file, _COPY_PIECE)
            self._file.flush()
            return start, self._file.tell()

    def give(self, place: tuple[int, int], target: BinaryIO) -> None:
        """Write what is kept in a place to a file."""
        assert self._file is not None
        self._file.seek(place[0])
        left = place[1] - place[0]
        while piece := self._file.read(min(left, _COPY_PIECE)):
            target.write(piece)
            left -= len(piece)

    def close(self) -> None:
        """Keep nothing any more."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Overwrite:
    """New content for a file in a directory that is closed to this user."""

    aside = None

    def __init__(self, place: Place, name: str, staged: HeldDirectory, here: HeldDirectory, kept: Kept) -> None:
        self.place, self.name = place, name
        self._kept = kept
        self._new = kept.keep(staged.read(name, closed=True))
        os.close(here.write(name))  # now, not when other changes are in place
        self._old: tuple[int, int] | None = None

    def do(self) -> None:
        with self.place.open() as here:
            self._old = self._kept.keep(here.read(self.name))
            self._write(here, self._new)

    def undo(self) -> None:
        if self._old is not None:
            with self.place.open() as here:
                self._write(here, self._old)

    def _write(self, here: HeldDirectory, content: tuple[int, int]) -> None:
        with os.fdopen(here.write(self.name), "wb") as file:
            file.truncate(0)
            self._kept.give(content, file)


def copy_file(
    source: HeldDirectory,
    name: str,
    target: HeldDirectory,
    new_name: str,
    status: os.stat_result,
    mode: int,
    replaced: os.stat_result | None = None,
) -> None:
    """A copy of a regular file under a new name, with its time; zeros may become holes.

    Args:
        source, name: the file.
        target, new_name: the copy.
        status: of the file.
        mode: the copy's permissions.
        replaced: of the file whose place it will take, whose owner, access list and attributes (``user.*``) it gets,
            where this user may say so: they do not travel with its content.
    """
    with (
        os.fdopen(source.read(name, closed=True), "rb") as opened,
        os.fdopen(target.create(new_name), "wb") as file,
    ):
        _copy_content(opened, file)
        if hasattr(os, "fchown") and replaced is not None and (replaced.st_uid, replaced.st_gid) != _owner(file):
            with suppress(PermissionError):
                os.fchown(file.fileno(), replaced.st_uid, replaced.st_gid)
        if replaced is not None:
            _copy_attributes(target, name, replaced, file)
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), mode)
        if os.utime in os.supports_fd:
            os.utime(file.fileno(), ns=(status.st_mtime_ns, status.st_mtime_ns))


def _copy_content(source: BinaryIO, target: BinaryIO) -> None:
    """Zeros are left out: what hands a sparse file out may have written all of them, which would fill a disk."""
    while piece := source.read(len(_ZEROS)):
        if piece == _ZEROS[: len(piece)]:
            target.seek(len(piece), os.SEEK_CUR)
        else:
            target.write(piece)
    target.truncate()
    target.flush()


def _copy_attributes(target: HeldDirectory, name: str, replaced: os.stat_result, file: BinaryIO) -> None:
    """Not the capabilities that a file gives, nor any other of security: new content does not inherit these."""
    if sys.platform != "linux":
        return
    with suppress(OSError):
        found = target.read(name)
        try:
            if identity_of(os.fstat(found)) != identity_of(replaced):
                return
            for attribute in os.listxattr(found):
                if attribute.startswith("user.") or attribute == "system.posix_acl_access":
                    with suppress(OSError):
                        os.setxattr(file.fileno(), attribute, os.getxattr(found, attribute))
        finally:
            os.close(found)


def _owner(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_uid, status.st_gid
