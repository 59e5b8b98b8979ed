"""Directories removed with all that is in them, whatever is in them. All of it blocks."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from praxis_mcp.support.rooted import HeldDirectory, check_name

_CLOSED = 0o700


def remove_tree(place: Path) -> OSError | None:
    """Remove a file, a link, or a directory with all that is in it.

    Directories may lack every permission, and lie deeper than a path can name or Python can recurse. No link is
    followed. What cannot be removed stays, and the rest goes all the same.

    Returns:
        why something stays, the first reason of several; None where all of it is gone.
    """
    try:
        if place.is_symlink() or not place.is_dir():
            place.unlink(missing_ok=True)
            return None
        if os.scandir not in os.supports_fd:
            return _remove_by_path(place)
        removal = _Removal(_enter(os.fspath(place), None))
        removal.run()
        if removal.failure is None:
            place.rmdir()
        return removal.failure
    except OSError as exc:
        return exc


def remove_entry(above: HeldDirectory, name: str) -> OSError | None:
    """As `remove_tree`, for the entry `name` of an open directory: no path is looked up again."""
    check_name(name)
    if above.descriptor < 0:
        return remove_tree(Path(above.path_of(name)))
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=above.descriptor, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=above.descriptor)
            return None
        removal = _Removal(_enter(name, above.descriptor))
        removal.run()
        if removal.failure is None:
            os.rmdir(name, dir_fd=above.descriptor)
        return removal.failure
    except FileNotFoundError:
        return None
    except OSError as exc:
        return exc


class _Removal:
    """Walks with one open directory, and back up by ``..``: neither frames nor descriptors grow with the depth."""

    def __init__(self, top: int) -> None:
        self.failure: OSError | None = None
        self._here = top
        self._above: list[os.stat_result] = []

    def run(self) -> None:
        """Empty the directory, and close it.

        Raises:
            OSError: it is moved about meanwhile.
        """
        try:
            waiting = [self._clear()]
            while True:
                if waiting[-1]:
                    if self._down(waiting[-1][-1]):
                        waiting.append(self._clear())
                    else:
                        waiting[-1].pop()
                    continue
                waiting.pop()
                if not waiting:
                    return
                self._up()
                self._try(os.rmdir, waiting[-1].pop())
        finally:
            os.close(self._here)

    def _clear(self) -> list[str]:
        """Remove the files of this directory; the names of the directories in it."""
        directories: list[str] = []
        with os.scandir(self._here) as found:
            entries = list(found)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                self._try(os.unlink, entry.name)
        return directories

    def _down(self, name: str) -> bool:
        try:
            inner = _enter_with_way_back(name, self._here)
        except OSError:
            self._try(os.rmdir, name)  # it may be empty
            return False
        self._above.append(os.fstat(self._here))
        os.close(self._here)
        self._here = inner
        return True

    def _up(self) -> None:
        outer = _outer(self._here)
        os.close(self._here)
        self._here = outer
        if not os.path.samestat(os.fstat(outer), self._above.pop()):
            raise OSError("somebody moves its directories about")

    def _try(self, remove: Callable[..., None], name: str) -> None:
        try:
            remove(name, dir_fd=self._here)
        except FileNotFoundError:
            pass
        except OSError as exc:
            self.failure = self.failure or exc


def _enter(name: str, above: int | None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        found = os.open(name, flags, dir_fd=above)
    except PermissionError:
        _open_up(name, above)
        found = os.open(name, flags, dir_fd=above)
    if os.fstat(found).st_mode & _CLOSED != _CLOSED:
        with suppress(OSError):  # another user's: what can be removed there still goes
            os.fchmod(found, _CLOSED)
    return found


def _enter_with_way_back(name: str, above: int) -> int:
    found = _enter(name, above)
    try:
        # Another user's 0744 can be entered, but neither emptied nor left again: the removal would end in there.
        os.close(_outer(found))
    except OSError:
        os.close(found)
        raise
    return found


def _outer(inner: int) -> int:
    return os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=inner)


def _open_up(name: str, above: int | None) -> None:
    if sys.platform != "linux":
        os.chmod(name, _CLOSED, dir_fd=above, follow_symlinks=False)
        return
    # Linux changes modes by name only through links, and so might reach a file that was put there meanwhile.
    found = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        os.chmod(f"/proc/self/fd/{found}", _CLOSED)  # noqa: PTH101 - the directory that is open
    finally:
        os.close(found)


def _remove_by_path(place: Path) -> OSError | None:
    """On Windows, where a file may be closed by an attribute of its own."""
    failures: list[OSError] = []

    def open_up(function: Callable[..., Any], path: str, _: object) -> None:
        try:
            Path(path).chmod(_CLOSED)
            function(path)
        except OSError as exc:
            failures.append(exc)

    shutil.rmtree(place, onerror=open_up)
    return failures[0] if failures else None
