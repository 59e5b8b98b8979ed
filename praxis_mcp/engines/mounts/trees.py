"""Directories and files of a call that are carried to a waiter over its channel, and what became of them back: for
engines that can mount nothing of this machine.

What comes back is written into a private directory, from which `bring_back` brings it to the host.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from praxis_mcp.engines.init.frame_types import FramingError
from praxis_mcp.engines.init.trees import (
    Found,
    FoundDirectory,
    FoundEnd,
    FoundFile,
    FoundGone,
    FoundLink,
    Shortfall,
    TreeBounds,
    encode_data,
    encode_hole,
    encode_tree,
    encode_tree_directory,
    encode_tree_file,
    encode_tree_link,
)
from praxis_mcp.engines.mounts.bring_back import Part
from praxis_mcp.engines.mounts.returned import DIRECTORY_BITS, FILE_BITS, Receiver, Sent, find_changes
from praxis_mcp.engines.mounts.write_back import STAGING
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Mount
from praxis_mcp.support.rooted import Entry, HeldDirectory, Identity, identity_of, walk
from praxis_mcp.support.text import counted, printable

_TREE_PIECE = 64 * 1024
"""Bytes of content in one frame."""
_BATCH = 256 * 1024
"""Bytes of frames that are sent at once: each batch is a turn of a thread."""
_OPEN = 0o700


class CarriedTree:
    """A directory, or one file, that is made for a call, and what the call left of it. See `Tree`.

    Attributes:
        place: absolute path, as the tool sees it.

    Args:
        place: see above.
        source: directory or file on this machine, without links in its path; None: an empty directory.
        staging: existing, empty, private directory for what comes back; None: nothing comes back.
        bounds: what it may have, each way.
        identity: device and inode of what was judged at the source; None takes what is there.
        hidden: paths relative to the source that other mounts and the like cover, for the tool: they are not sent, and
            what is there does not come back.
    """

    def __init__(
        self,
        place: str,
        *,
        source: Path | None = None,
        staging: Path | None = None,
        bounds: TreeBounds | None = None,
        identity: Identity | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self.place = place
        self._source = source
        self._bounds = bounds or TreeBounds()
        self._identity = identity
        self._hidden = frozenset(hidden)
        self._left = self._bounds.size
        self._sent: dict[str, Sent] = {}
        self._file_name: str | None = None
        self._root: Identity | None = None
        self._receiver = None if staging is None else Receiver(staging, self._bounds, keeps_modes=source is not None)

    @classmethod
    def of_mount(
        cls, mount: Mount, places: Iterable[str], staging: Path, bounds: TreeBounds | None = None
    ) -> CarriedTree:
        """The tree of a mount; what becomes of one without `:rw` does not come back.

        Args:
            mount: the mount.
            places: absolute paths of the other mounts, the artifacts and the call's files; those within the mount do
                not belong to its tree.
            staging: see the class.
            bounds: see the class.
        """
        base = mount.target.rstrip("/") + "/"
        return cls(
            mount.target,
            source=mount.source,
            staging=staging if mount.writable else None,
            bounds=bounds,
            identity=mount.identity,
            hidden={path.rstrip("/").removeprefix(base) for path in places if path.startswith(base)},
        )

    @property
    def returns(self) -> bool:
        """See `Tree.returns`."""
        return self._receiver is not None

    def part(self) -> Part | None:
        """What `bring_back` brings to the host, once the call has ended; None where nothing changed.

        Raises:
            ExecutionError: not all of it came back, and so nothing may be written.
        """
        receiver = self._receiver
        if receiver is None or receiver.end is None:
            return None
        if receiver.end.shortfall is not Shortfall.NONE:
            raise self._shortfall(receiver.end)
        changes = find_changes(self._sent, receiver, self._root, self._hidden)
        if self._source is None or not (changes.added or changes.modified or changes.removed or changes.others):
            return None
        if self._file_name is not None and changes.removed:
            raise ExecutionError(
                f"The tool removed {self.place}, which is {self._source}: a file that is mounted can be changed, and "
                "not removed. Nothing was written.",
                remedy="Mount the directory around it.",
            )
        return Part(
            self.place, self._source if self._file_name is None else self._source.parent, receiver.staging, changes
        )

    def _shortfall(self, end: FoundEnd) -> ExecutionError:
        where = f"What the tool left in {self.place} did not come back, none of it: "
        limit = "Have the tool write less there; temporary files belong in /tmp."
        path = printable(end.path)  # the tool's choice
        match end.shortfall:
            case Shortfall.MORE_ENTRIES:
                return ExecutionError(f"{where}it is more than {self._bounds.entries} entries.", remedy=limit)
            case Shortfall.MORE_BYTES:
                return ExecutionError(f"{where}it is more than {counted(self._bounds.size, 'byte')}.", remedy=limit)
            case Shortfall.TOO_DEEP:
                return ExecutionError(f"{where}{path} is too deep.", remedy="Have the tool make fewer directories.")
            case Shortfall.BUSY:
                return ExecutionError(f"{where}something that the tool started could not be ended.")
            case _:
                reason = os.strerror(end.number)
                return ExecutionError(
                    f"{where}{path} cannot be read: {reason}.",
                    remedy="The tool's user must own what is there.",
                )

    # --- there

    def frames(self) -> Generator[bytes]:
        """See `Tree.frames`."""
        if self._source is None:
            yield encode_tree(self.place, self._bounds, returns=self.returns)
            return
        try:
            yield from _batched(self._frames(self._source))
        except OSError as exc:
            raise ExecutionError(
                f"{exc.filename or self._source}, which is mounted at {self.place}, cannot be read: {exc.strerror}.",
                remedy="The server's user must be able to read it, and nothing may move it meanwhile.",
            ) from exc

    def _frames(self, source: Path) -> Iterator[bytes]:
        try:
            directory = HeldDirectory.at(source.parent, listed=False)
        except OSError as exc:
            exc.filename = str(source)
            raise
        with directory as above:
            status = above.look(source.name) if source.name else above.status
            if status is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
            if stat.S_ISDIR(status.st_mode):
                with above.enter(source.name or ".") as top:
                    yield from self._directory(top)
                return
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is neither a file nor a directory", str(source))
            self._judge(status, source)
            self._file_name, self._root = source.name, identity_of(above.status)
            yield encode_tree(self.place, self._bounds, returns=self.returns, is_file=True)
            yield from self._file(source.name, above, Entry(source.name, status))

    def _judge(self, status: os.stat_result, source: Path) -> None:
        if self._identity is not None and identity_of(status) != self._identity:
            raise OSError(errno.ESTALE, "is not what was judged", str(source))

    def _directory(self, top: HeldDirectory) -> Iterator[bytes]:
        self._judge(top.status, Path(top.shown))
        self._root = identity_of(top.status)
        yield encode_tree(self.place, self._bounds, returns=self.returns)
        closed: list[tuple[str, int]] = []
        for path, here, entry in walk(top):
            if entry.name.startswith(STAGING) or self._is_hidden(path):
                continue
            kind, mode = stat.S_IFMT(entry.status.st_mode), entry.status.st_mode
            if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                continue
            if len(self._sent) >= self._bounds.entries:
                raise self._too_large(f"more than {self._bounds.entries} entries")
            if kind != stat.S_IFLNK and not here.readable(entry.name, entry.status):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), here.path_of(entry.name))
            if kind == stat.S_IFDIR:
                mode &= DIRECTORY_BITS
                self._sent[path] = Sent(kind, mode)
                yield encode_tree_directory(path, mode | _OPEN)
                if mode & _OPEN != _OPEN:
                    closed.append((path, mode))
            elif kind == stat.S_IFLNK:
                self._sent[path] = Sent(kind, 0)
                yield encode_tree_link(path, here.link_target(entry.name))
            else:
                yield from self._file(path, here, entry)
        for path, mode in reversed(closed):
            yield encode_tree_directory(path, mode)

    def _is_hidden(self, path: str) -> bool:
        return any(path == other or path.startswith(f"{other}/") for other in self._hidden)

    def _file(self, path: str, here: HeldDirectory, entry: Entry) -> Iterator[bytes]:
        with os.fdopen(here.read(entry.name), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            self._left -= status.st_size
            if self._left < 0:
                raise self._too_large(f"more than {counted(self._bounds.size, 'byte')}")
            mode = status.st_mode & FILE_BITS
            self._sent[path] = Sent(stat.S_IFREG, mode)
            shown = path if self._file_name is None else self.place.rpartition("/")[2]
            yield encode_tree_file(shown, mode, status.st_mtime_ns)
            yield from _content(file.fileno(), status.st_size)

    def _too_large(self, what: str) -> ExecutionError:
        return ExecutionError(
            f"{self._source}, which is mounted at {self.place}, is {what}, too much to be carried to where the tool "
            "runs.",
            remedy="Mount something narrower, or put it into the image.",
        )

    # --- back

    def take(self, found: Sequence[Found]) -> None:
        """See `Tree.take`."""
        if self._receiver is None:
            raise FramingError("what was found of a tree that does not come back")
        try:
            for part in found:
                self._receiver.take(self._named(part), self._sent, self._is_hidden)
        except OSError as exc:
            raise ExecutionError(
                f"What the tool left in {self.place} could not be kept, and nothing was written: {exc.strerror}.",
                remedy=f"The disk that holds {self._receiver.staging.parent} must have room for it.",
            ) from exc

    def _named(self, part: Found) -> Found:
        """As it is called on this machine."""
        if self._file_name is None or not isinstance(part, FoundGone | FoundDirectory | FoundFile | FoundLink):
            return part
        if part.path != self.place.rpartition("/")[2]:
            raise FramingError("another entry than the file that is the tree")
        return replace(part, path=self._file_name)

    def close(self) -> None:
        """See `Tree.close`."""
        if self._receiver is not None:
            self._receiver.close()


def _content(file: int, size: int) -> Iterator[bytes]:
    """The content of a file of that size; no more, should it grow meanwhile."""
    place = 0
    while place < size:
        data, end = _next_data(file, place, size)
        if data > place:
            yield encode_hole(data - place)
        while data < end:
            piece = os.pread(file, min(_TREE_PIECE, end - data), data)
            if not piece:
                return
            yield encode_data(piece)
            data += len(piece)
        place = end


def _next_data(file: int, place: int, size: int) -> tuple[int, int]:
    """Where the next bytes outside of a hole begin and end."""
    if sys.platform != "linux":
        return place, size
    try:
        data = min(os.lseek(file, place, os.SEEK_DATA), size)
        return data, min(os.lseek(file, data, os.SEEK_HOLE), size) if data < size else size
    except OSError as exc:  # ENXIO: there is none; else a file system that does not tell
        return (size, size) if exc.errno == errno.ENXIO else (place, size)


def _batched(frames: Iterator[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for frame in frames:
        waiting.append(frame)
        size += len(frame)
        if size >= _BATCH:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
