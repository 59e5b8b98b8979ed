"""What a waiter found of a tree that comes back: written into a private directory, and compared with what was sent."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from praxis_mcp.engines.init.frame_types import FramingError
from praxis_mcp.engines.init.trees import (
    Found,
    FoundData,
    FoundDirectory,
    FoundEnd,
    FoundFile,
    FoundGone,
    FoundHole,
    FoundLink,
    Shortfall,
    TreeBounds,
)
from praxis_mcp.engines.mounts.write_back import Changes
from praxis_mcp.support.rooted import HeldDirectory, Identity, descend

FILE_BITS, DIRECTORY_BITS = 0o777, 0o3777
"""Permission bits that travel. Set-user-id and set-group-id of files do not, either way."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent of an entry: its kind, as `stat.S_IFMT` has it, and permissions."""

    kind: int
    mode: int


class Receiver:
    """What comes back of a tree, written below a private directory; no link is followed there."""

    def __init__(self, staging: Path, bounds: TreeBounds, *, keeps_modes: bool) -> None:
        self.staging = staging
        self.found: dict[str, int] = {}
        """Of each entry that came, its kind, as `stat.S_IFMT` has it."""
        self.gone: set[str] = set()
        self.end: FoundEnd | None = None
        self._bounds = bounds
        self._keeps_modes = keeps_modes
        self._size = 0
        self._modes: dict[str, int] = {}
        self._file: _File | None = None
        self._here: HeldDirectory | None = None
        self._above = ""
        self._is_skipping = False

    def take(self, part: Found, sent: Mapping[str, Sent], is_hidden: Callable[[str], bool]) -> None:
        """Take in the next part.

        Args:
            part: the part.
            sent: the entries that were sent, by path.
            is_hidden: whether a path is another's: what was found there is none of this tree.

        Raises:
            FramingError: it breaks the rules.
            OSError: it cannot be written.
        """
        if isinstance(part, FoundData | FoundHole):
            if self._is_skipping:
                return
            if self._file is None:
                raise FramingError("content without a file")
            if isinstance(part, FoundData):
                self._file.write(part.data)
            else:
                self._file.skip(part.size)
            return
        self._end_file(is_cut=isinstance(part, FoundEnd) and part.shortfall is not Shortfall.NONE)
        named = isinstance(part, FoundGone | FoundDirectory | FoundFile | FoundLink)
        self._is_skipping = named and is_hidden(part.path)
        if not self._is_skipping:
            self._take(part, sent)

    def _take(self, part: Found, sent: Mapping[str, Sent]) -> None:
        match part:
            case FoundGone(path):
                if path not in sent:
                    raise FramingError("what is gone and never was there")
                self.gone.add(path)
            case FoundDirectory(path, mode):
                self._note(path, stat.S_IFDIR)
                self._modes[path] = mode & DIRECTORY_BITS
                self._parent(path, sent).make(path.rpartition("/")[2])
            case FoundFile(path, mode, size, modified):
                self._size += size
                if self._size > self._bounds.size:
                    raise FramingError(f"more than {self._bounds.size} bytes of files")
                self._note(path, stat.S_IFREG)
                descriptor = self._parent(path, sent).create(path.rpartition("/")[2])
                self._file = _File(descriptor, size, mode & FILE_BITS if self._keeps_modes else 0o600, modified)
            case FoundLink(path, target):
                self._note(path, stat.S_IFLNK)
                self._parent(path, sent).make_link(path.rpartition("/")[2], target)
            case FoundEnd():
                self._leave()
                self.end = part
                if part.shortfall is Shortfall.NONE:
                    self._set_modes()
            case _:
                pass

    def close(self) -> None:
        """Let go of what is open."""
        self._leave()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _end_file(self, *, is_cut: bool) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.finish(is_cut=is_cut)

    def _note(self, path: str, kind: int) -> None:
        if path in self.found:
            raise FramingError("an entry that came twice")
        # New ones are bounded there; those that were sent may all come again.
        if len(self.found) >= 2 * self._bounds.entries:
            raise FramingError(f"more than {2 * self._bounds.entries} entries")
        self.found[path] = kind

    def _parent(self, path: str, sent: Mapping[str, Sent]) -> HeldDirectory:
        """The directory that it is in, open until the next one; one that did not change has not come, and is made."""
        above = path.rpartition("/")[0]
        if self._here is None or self._above != above:
            self._leave()
            with HeldDirectory.at(self.staging, links=True) as top:
                try:
                    self._here = descend(top, above)
                except FileNotFoundError:
                    self._here = self._make(top, above, sent)
            self._above = above
        return self._here

    def _make(self, top: HeldDirectory, path: str, sent: Mapping[str, Sent]) -> HeldDirectory:
        here = top.enter(".")
        names = path.split("/")
        for number, name in enumerate(names, 1):
            known = "/".join(names[:number])
            with here:
                if here.look(name) is None:
                    if known not in sent or sent[known].kind != stat.S_IFDIR or known in self.found:
                        raise FramingError("an entry of a directory that did not come")
                    here.make(name)
                    self._modes[known] = sent[known].mode
                here = here.enter(name)
        return here

    def _leave(self) -> None:
        here, self._here = self._here, None
        if here is not None:
            here.close()

    def _set_modes(self) -> None:
        if not self._keeps_modes:
            return
        with HeldDirectory.at(self.staging, links=True) as top:
            for path in sorted(self._modes, reverse=True):  # what is in a directory before it may be closed
                above, _, name = path.rpartition("/")
                with descend(top, above) as here:
                    here.set_mode(name, self._modes[path])


class _File:
    """A file that is coming."""

    def __init__(self, descriptor: int, size: int, mode: int, modified: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._left = size
        self._mode = mode
        self._modified = modified

    def write(self, data: bytes) -> None:
        """Its next bytes."""
        self._count(len(data))
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def skip(self, size: int) -> None:
        """So many zeros."""
        self._count(size)
        self._file.seek(size, os.SEEK_CUR)

    def finish(self, *, is_cut: bool) -> None:
        """It is whole, unless it is cut."""
        with self._file as file:
            if self._left and not is_cut:
                raise FramingError("less of a file than its size")
            file.truncate(file.tell())
            if sys.platform != "win32":
                os.fchmod(file.fileno(), self._mode)
                os.utime(file.fileno(), ns=(self._modified, self._modified))

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def _count(self, size: int) -> None:
        if size > self._left:
            raise FramingError("more of a file than its size")
        self._left -= size


def find_changes(
    sent: Mapping[str, Sent], receiver: Receiver, root: Identity | None, hidden: Collection[str] = ()
) -> Changes:
    """What was found against what was sent, as `WriteBack` takes it.

    Args:
        sent: the entries that were sent, by path.
        receiver: what came back.
        root: device and inode of the directory that was sent.
        hidden: paths of other mounts and the like: directories on the way to them are not a change.
    """
    found = receiver.found
    replaced = {path for path, kind in found.items() if path in sent and sent[path].kind != kind}
    # Directories that went, or became something else: what was in them went with them.
    emptied = {path for path in receiver.gone | replaced if sent[path].kind == stat.S_IFDIR}
    removed = {path for path in receiver.gone | replaced if not _is_in(path, emptied)}
    full = {above for path in found for above in _above(path)}
    way = {above for path in hidden for above in _above(path)} - full
    added = [path for path in found if (path not in sent or path in replaced) and path not in way]
    modified = [path for path in found if path in sent and path not in replaced and found[path] != stat.S_IFDIR]
    return Changes(
        added=tuple(sorted(_shown(path, found[path]) for path in added)),
        modified=tuple(sorted(modified)),
        removed=tuple(sorted(_shown(path, sent[path].kind) for path in removed)),
        seen=frozenset(path for path in sent if _is_in(path, removed)),
        others=any(path not in way for path in found),
        identity=root,
    )


def _is_in(path: str, directories: Collection[str]) -> bool:
    return any(above in directories for above in _above(path))


def _shown(path: str, kind: int) -> str:
    return f"{path}/" if kind == stat.S_IFDIR else path


def _above(path: str) -> Iterator[str]:
    """The directories that it is in."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
