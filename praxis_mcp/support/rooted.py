"""Paths and directories of the host, opened so that no link is followed: what a descriptor holds stays what was judged,
whatever its path leads to afterwards.

A tool that may write to a directory can put a link in the place of anything in it, at any moment. So nothing below a
directory that a tool can reach is named by a path: each step goes from one open directory into the next, follows no
link, and what is judged is what is open. Names may hold any bytes (`surrogateescape`). All of it blocks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

MAX_WALK_DEPTH = 200
"""Directories inside each other that are gone into, each of which is held open."""
CHANGED = (errno.ELOOP, errno.ENOENT, errno.ENOTDIR)
"""What opening fails with where a path without links has been changed since."""

Identity = tuple[int, int]
"""Device and inode."""

_OPENAT2 = 437
"""The number of openat2(2), Linux 5.6, on every architecture."""
_NO_LINKS = 0x02 | 0x04
"""RESOLVE_NO_MAGICLINKS and RESOLVE_NO_SYMLINKS (linux/openat2.h)."""
_PATH: int = getattr(os, "O_PATH", 0)
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)
_ENTER = os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC
_PLAIN = _NOFOLLOW | _CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_BY_DESCRIPTOR = os.open in os.supports_dir_fd and os.scandir in os.supports_fd
"""Whether this system names files by a descriptor and a name; Windows does not, and takes paths instead."""
_LINKS_LINKS = os.link in os.supports_follow_symlinks
_EFFECTIVE = os.access in os.supports_effective_ids


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_path(path: str) -> int:
    """A descriptor (O_PATH) of what is at an absolute path without ``..``, no link followed anywhere in it.

    Where there is no O_PATH (not Linux), for directories only.

    Raises:
        OSError: ELOOP or ENOTDIR where a link is on the way; or it is not there, or may not be looked at.
    """
    if (call := _openat2()) is not None:
        how = _How(_PATH | _CLOEXEC, 0, _NO_LINKS)
        found = call(_OPENAT2, -100, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        number = ctypes.get_errno()
        if found >= 0:
            return int(found)
        if number not in (errno.ENOSYS, errno.EPERM, errno.E2BIG):  # an older kernel, or a container's filter
            raise OSError(number, os.strerror(number), path)
    return _open_singly(path)


def _open_singly(path: str) -> int:
    """The same, one name after the other."""
    held = os.open("/", _PATH | _DIRECTORY | _CLOEXEC)
    names = [name for name in path.split("/") if name] or ["."]
    for number, name in enumerate(names):
        step = _PATH if number + 1 == len(names) else _PATH | _DIRECTORY
        above = held
        try:
            held = os.open(name, step | _NOFOLLOW | _CLOEXEC, dir_fd=above)
        finally:
            os.close(above)
    if stat.S_ISLNK(os.fstat(held).st_mode):
        os.close(held)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return held


def identity_of(found: int | os.stat_result) -> Identity:
    """Which file or directory it is, by a descriptor or its status: what tells it from another at the same path."""
    status = os.fstat(found) if isinstance(found, int) else found
    return status.st_dev, status.st_ino


@cache
def _openat2() -> Any:
    if sys.platform != "linux":
        return None
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_How), ctypes.c_size_t)
    return call


class Entry(NamedTuple):
    """One entry of a directory, as it was a moment ago."""

    name: str
    status: os.stat_result


class HeldDirectory:
    """A directory that is open until `close`.

    Attributes:
        shown: its path when it was opened, for messages.
    """

    def __init__(self, descriptor: int, shown: str) -> None:
        """Use `at` and `enter`. `descriptor`: this object closes it; -1 where the system has none for directories."""
        self._descriptor = descriptor
        self.shown = shown

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, links: bool = False, listed: bool = True) -> HeldDirectory:
        """The directory at an absolute path.

        Args:
            path: the path.
            links: whether links on the way are followed; say so only where no tool can write to anything above it.
            listed: see `enter`.

        Raises:
            OSError: there is none, or (ELOOP, ENOTDIR) a link is on the way.
        """
        text = os.path.abspath(path)  # noqa: PTH100 - a path of a file system, not of ours
        if not _BY_DESCRIPTOR:
            if not stat.S_ISDIR(os.lstat(text).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), text)
            return cls(-1, text)
        if links:
            return cls(os.open(text, (_ENTER if listed else _ENTER | _PATH) & ~_NOFOLLOW), text)
        held = open_path(f"{text}/.")
        if not listed:
            return cls(held, text)
        try:  # through directories that may be entered, and not listed, as a path leads
            return cls(os.open(".", _ENTER, dir_fd=held), text)
        finally:
            os.close(held)

    def __enter__(self) -> HeldDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """Of the directory, which stays open until `close`; -1 where the system has none for directories."""
        return self._descriptor

    @property
    def status(self) -> os.stat_result:
        """Of the directory itself."""
        return os.fstat(self._descriptor) if _BY_DESCRIPTOR else os.lstat(self.shown)

    def path_of(self, name: str) -> str:
        """The path of an entry, for messages and results."""
        return os.path.join(self.shown, name)  # noqa: PTH118

    def enter(self, name: str, *, closed: bool = False, listed: bool = True) -> HeldDirectory:
        """The directory `name` in this one.

        Args:
            name: one component.
            closed: open it up to this user first (0700) where it is closed.
            listed: False is enough to name what is in it, and needs no permission to list it.

        Raises:
            OSError: there is none, or (ELOOP, ENOTDIR) it is not a directory.
        """
        check_name(name)
        if not _BY_DESCRIPTOR:
            return HeldDirectory.at(self.path_of(name))
        try:
            found = self._open(name, _ENTER if listed else _ENTER | _PATH)
        except PermissionError:
            if not closed:
                raise
            self.set_mode(name, 0o700)
            found = self._open(name, _ENTER)
        return HeldDirectory(found, self.path_of(name))

    def entries(self) -> Iterator[Entry]:
        """What is in it, in no order, one after the other: a tool may have made millions. What vanishes meanwhile is
        left out. Only one such look at a time, since they share a position.

        Raises:
            OSError: it cannot be read.
        """
        with os.scandir(self._descriptor if _BY_DESCRIPTOR else self.shown) as listed:
            for entry in listed:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield Entry(entry.name, status)

    def look(self, name: str) -> os.stat_result | None:
        """Status of an entry, no link followed; None where there is none."""
        try:
            if not _BY_DESCRIPTOR:
                return os.lstat(self._place(name))
            return os.stat(self._place(name), dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def readable(self, name: str, status: os.stat_result) -> bool:
        """Whether this user may read a file, or list a directory, that has this status."""
        needed = 0o5 if stat.S_ISDIR(status.st_mode) else 0o4
        if status.st_mode >> 6 & status.st_mode >> 3 & status.st_mode & needed == needed:
            return True  # anyone may; the common case needs no call
        mode = os.R_OK | (os.X_OK if stat.S_ISDIR(status.st_mode) else 0)
        if not _BY_DESCRIPTOR:
            return os.access(self._place(name), mode)
        return os.access(self._place(name), mode, dir_fd=self._descriptor, effective_ids=_EFFECTIVE)

    def read(self, name: str, *, closed: bool = False) -> int:
        """A descriptor to read a regular file from; the caller closes it.

        Args:
            name: one component.
            closed: open it up to this user first (0600) where it is closed.

        Raises:
            OSError: it cannot be read, or is not a regular file.
        """
        try:
            return self._regular(name, os.O_RDONLY)
        except PermissionError:
            if not closed:
                raise
            self.set_mode(name, 0o600)
            return self._regular(name, os.O_RDONLY)

    def write(self, name: str) -> int:
        """A descriptor to overwrite a regular file that exists; the caller closes it.

        Raises:
            OSError: it cannot be written, or is not a regular file.
        """
        return self._regular(name, os.O_RDWR)

    def create(self, name: str) -> int:
        """A descriptor of a new, empty file that only this user may use; the caller closes it.

        Raises:
            OSError: it cannot be made; FileExistsError where there is one.
        """
        return self._open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600)

    def make(self, name: str, mode: int = 0o700) -> None:
        """A new, empty directory; only this user may use it, unless `mode` (less the umask) says otherwise."""
        os.mkdir(self._place(name), mode, **self._here("dir_fd"))  # noqa: PTH102

    def make_link(self, name: str, target: str) -> None:
        """A new symbolic link."""
        os.symlink(target, self._place(name), dir_fd=self._descriptor if _BY_DESCRIPTOR else None)

    def link_target(self, name: str) -> str:
        """Where a symbolic link leads."""
        return os.readlink(self._place(name), **self._here("dir_fd"))

    def add_name(self, name: str, other: str) -> None:
        """A second name for a file (a hard link)."""
        os.link(
            self._place(name),
            self._place(other),
            follow_symlinks=not _LINKS_LINKS,
            **self._here("src_dir_fd", "dst_dir_fd"),
        )

    def move(self, name: str, target: HeldDirectory, new_name: str) -> None:
        """Give an entry another name, here or in another directory, in place of what has that name.

        Raises:
            OSError: EXDEV where the other directory is on another file system.
        """
        held = {"src_dir_fd": self._descriptor, "dst_dir_fd": target._descriptor} if _BY_DESCRIPTOR else {}
        os.replace(self._place(name), target._place(new_name), **held)  # noqa: PTH105

    def remove(self, name: str) -> None:
        """Remove a file or a link."""
        os.unlink(self._place(name), **self._here("dir_fd"))

    def remove_empty(self, name: str) -> None:
        """Remove a directory that is empty."""
        os.rmdir(self._place(name), **self._here("dir_fd"))

    def set_mode(self, name: str, mode: int) -> None:
        """Change the permission bits of a file or directory; of a link's target never."""
        if not _BY_DESCRIPTOR:
            os.chmod(self._place(name), mode)  # noqa: PTH101
        elif sys.platform != "linux":
            os.chmod(self._place(name), mode, dir_fd=self._descriptor, follow_symlinks=False)
        else:
            # Linux changes modes by name only through links, and so might reach what was put there meanwhile.
            found = self._open(name, _PATH | _NOFOLLOW | _CLOEXEC)
            try:
                if stat.S_ISLNK(os.fstat(found).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.path_of(name))
                os.chmod(f"/proc/self/fd/{found}", mode)  # noqa: PTH101 - the very file that is open
            finally:
                os.close(found)

    def set_owner(self, like: os.stat_result) -> None:
        """Give the directory the owner that `like` has, where this user may."""
        if _BY_DESCRIPTOR:
            with suppress(PermissionError):
                os.fchown(self._descriptor, like.st_uid, like.st_gid)

    def _regular(self, name: str, flags: int) -> int:
        # Without blocking: somebody may have put a FIFO there.
        found = self._open(name, flags | _PLAIN)
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise OSError(errno.EINVAL, "is not a regular file", self.path_of(name))
        return found

    def _open(self, name: str, flags: int, mode: int = 0) -> int:
        return os.open(self._place(name), flags, mode, **self._here("dir_fd"))

    def _place(self, name: str) -> str:
        check_name(name)
        return name if _BY_DESCRIPTOR else self.path_of(name)

    def _here(self, *keywords: str) -> dict[str, int]:
        return dict.fromkeys(keywords, self._descriptor) if _BY_DESCRIPTOR else {}


def walk(
    top: HeldDirectory,
    depth: int = MAX_WALK_DEPTH,
    *,
    leave_out: Collection[str] = (),
    on_closed: Callable[[OSError], None] | None = None,
) -> Iterator[tuple[str, HeldDirectory, Entry]]:
    """Everything below a directory: its path from there, the directory it is in (open until the next one), itself.

    Directories come before what is in them. What vanishes meanwhile, or is not a directory any more, is left out.

    Args:
        top: the directory.
        depth: directories inside each other that are gone into; each is held open.
        leave_out: paths from there that are passed over, with all that is below them.
        on_closed: called for each directory that cannot be read, and left out; `filename` is its path.

    Raises:
        OSError: a directory cannot be read, and nobody is called for it.
    """
    # From each directory into the next: to begin at the top each time would be quadratic for a tool's deep ones.
    around: list[HeldDirectory] = []
    waiting: list[tuple[str, int]] = [("", 0)]
    try:
        while waiting:
            place, level = waiting.pop()
            while len(around) > level:
                around.pop().close()
            try:
                around.append(around[-1].enter(place.rstrip("/").rpartition("/")[2]) if level else descend(top, ""))
                for entry in around[-1].entries():
                    path = f"{place}{entry.name}"
                    if path in leave_out:
                        continue
                    yield path, around[-1], entry
                    if stat.S_ISDIR(entry.status.st_mode) and level < depth:
                        waiting.append((f"{path}/", level + 1))
            except OSError as exc:
                if exc.errno in CHANGED:
                    continue
                exc.filename = top.path_of(place)
                if on_closed is None:
                    raise
                on_closed(exc)
    finally:
        for here in around:
            here.close()


def descend(top: HeldDirectory, path: str) -> HeldDirectory:
    """The directory at a relative path below `top`, no link followed on the way; the caller closes it. Those on the way
    need not be listed.

    Raises:
        OSError: there is none, or a link is on the way.
    """
    names = [name for name in path.split("/") if name]
    found = top.enter(".", listed=not names)
    found.shown = top.shown
    for number, name in enumerate(names, 1):
        with found:
            found = found.enter(name, listed=number == len(names))
    return found


def open_kept(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file at an absolute path, to read. A link in its place or anywhere on the way, which may lead to any
    file of the host, is refused, and the writer of a pipe is not waited for.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    with _around(path) as (directory, name):
        return os.fdopen(directory.read(name), "rb")


def kept_size(path: str | os.PathLike[str]) -> int:
    """Bytes of a file that `open_kept` would open, where this user may read it.

    Raises:
        OSError: there is none.
    """
    with _around(path) as (directory, name):
        status = directory.look(name)
        if status is None or not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        return status.st_size


@contextmanager
def _around(path: str | os.PathLike[str]) -> Iterator[tuple[HeldDirectory, str]]:
    above, name = os.path.split(path)
    with HeldDirectory.at(above, listed=False) as directory:
        yield directory, name


def check_name(name: str) -> None:
    """Raises `OSError` where it is not one component."""
    if name in ("", "..") or "/" in name or "\0" in name or (os.sep != "/" and os.sep in name):
        raise OSError(errno.EINVAL, "is not the name of an entry", name)
