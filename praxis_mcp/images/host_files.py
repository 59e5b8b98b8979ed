"""Files of this machine that are to go into an image, under the paths that they have here."""

# Paths of the whole file system, as text, and thousands of them.
# ruff: noqa: PTH115, PTH116, PTH118, PTH119

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from praxis_mcp.errors import ImageError
from praxis_mcp.support.files import follow_links
from praxis_mcp.support.rooted import CHANGED, HeldDirectory, open_path

FIXED_TIME = 315_532_800
"""Every file's time in such an image: 1980-01-01, before which zip archives know no time. A time that says when the
image was made would give it another digest each time."""

_MAX_DEPTH = 100
_NOT_KEPT = ("/proc", "/dev", "/sys", "/tmp")  # noqa: S108 - what a sandbox has of its own
_MAX_NOTES = 200


@dataclass(frozen=True, slots=True)
class HostFile:
    """One entry of the image.

    Attributes:
        path: absolute, the same here and there.
        mode: as `stat` has it: kind and permissions.
        size: bytes of a regular file.
        target: of a symbolic link, as it stands here.
        identity: device, inode and time of change of a file here; what is opened later must still be that.
        content: of a file that is not from here.
        is_private: whether not everyone may read it here; in the image, everyone may.
    """

    path: str
    mode: int
    size: int = 0
    target: str = ""
    identity: tuple[int, int, int] | None = None
    content: bytes | None = None
    is_private: bool = False


class HostFiles:
    """What is taken.

    Args:
        max_size: bytes of all files together.
        max_files: files, directories and links together.
        is_stopped: asked now and then; True ends the work.

    Attributes:
        size: bytes that were taken so far.
        notes: what users should hear of it: what was left out, or is not as it was.
    """

    def __init__(self, max_size: int, max_files: int, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self.size = 0
        self.notes: list[str] = []
        self._max_size = max_size
        self._max_files = max_files
        self._is_stopped = is_stopped
        self._entries: dict[str, HostFile] = {}

    def __iter__(self) -> Iterator[HostFile]:
        """Every entry, sorted: directories come before what is in them."""
        return iter(sorted(self._entries.values(), key=lambda entry: entry.path.split("/")))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def take(self, path: str) -> HostFile:
        """Take what a path leads to, and every link and directory on the way.

        Args:
            path: absolute.

        Returns:
            the file or directory that it leads to; a directory is taken without what is in it.

        Raises:
            ImageError: there is nothing, or it cannot be taken.
        """
        try:
            return self._take(path)
        except OSError as exc:
            raise ImageError(f"{path} cannot be taken: {exc.strerror}.", remedy=_remedy(exc)) from exc

    def take_tree(
        self, directory: str, is_left_out: Callable[[str], bool] = lambda path: False
    ) -> tuple[HostFile, ...]:
        """Take a directory, and all that is in it.

        Links are kept as they are; what one leads to is taken as well where that is a file.

        Args:
            directory: absolute.
            is_left_out: called with the path of each entry.

        Returns:
            the regular files in it.

        Raises:
            ImageError: something in it cannot be taken.
        """
        found: list[HostFile] = []
        top = self.take(directory).path
        waiting = [top]
        while waiting:
            place = waiting.pop()
            if place.count("/") > _MAX_DEPTH:
                raise ImageError(f"{place[:200]} has directories more than {_MAX_DEPTH} deep.")
            try:
                # Its owner may meanwhile put a link in its place, to what only this user may read.
                with HeldDirectory.at(place) as held:
                    for name, status in sorted(held.entries()):
                        path = os.path.join(place, name)
                        if is_left_out(path):
                            continue
                        entry = self._take_entry(path, top, held, status)
                        if entry is not None and stat.S_ISDIR(entry.mode):
                            waiting.append(path)
                        elif entry is not None and stat.S_ISREG(entry.mode):
                            found.append(entry)
            except OSError as exc:
                if exc.errno in CHANGED:
                    raise _changed(place) from exc
                raise ImageError(f"{place} cannot be taken: {exc.strerror}.", remedy=_remedy(exc)) from exc
        return tuple(found)

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file that is not from here, and the directories above it."""
        self._directories(path)
        self._add(HostFile(path, stat.S_IFREG | mode, len(content), content=content))

    def link(self, path: str, target: str) -> None:
        """Add a link that is not from here, unless something has its place."""
        if path not in self._entries:
            self._directories(path)
            self._add(HostFile(path, stat.S_IFLNK | 0o777, target=target))

    def leave_out(self, entry: HostFile, why: str) -> None:
        """Take a file away again."""
        if self._entries.pop(entry.path, None) is not None:
            self.size -= entry.size
        self.note(f"left out {entry.path}: {why}")

    def note(self, text: str) -> None:
        """Keep something to be said, once."""
        if text not in self.notes and len(self.notes) < _MAX_NOTES:
            self.notes.append(text)

    def contents(self, entries: Collection[HostFile]) -> Iterator[tuple[HostFile, bytes]]:
        """What is in these files.

        Raises:
            ImageError: one has changed since it was looked at, or cannot be read.
        """
        for entry in entries:
            with open_taken(entry) as file:
                yield entry, file.read(entry.size)

    def write_layer(self, out: BinaryIO) -> None:
        """Write all of it as a layer: sorted, all owned by root, with one time, and with one of two permissions, so
        that the same files give the same bytes for every user.

        Raises:
            ImageError: a file has changed since it was looked at, or cannot be read.
        """
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for number, entry in enumerate(self):
                if number % 64 == 0:
                    self._check_stopped()
                info = tarfile.TarInfo(entry.path.lstrip("/"))
                info.mtime = FIXED_TIME
                info.mode = stat.S_IMODE(entry.mode)
                if stat.S_ISDIR(entry.mode):
                    info.type = tarfile.DIRTYPE
                    tar.addfile(info)
                elif stat.S_ISLNK(entry.mode):
                    info.type, info.linkname = tarfile.SYMTYPE, entry.target
                    tar.addfile(info)
                else:
                    info.size = entry.size
                    with open_taken(entry) as file:
                        self._copy(tar, info, file)

    @staticmethod
    def _copy(tar: tarfile.TarFile, info: tarfile.TarInfo, file: BinaryIO) -> None:
        try:
            tar.addfile(info, file)
        except OSError as exc:
            if exc.errno is None:  # what tarfile says of a file that is shorter by now
                raise _changed(f"/{info.name}") from exc
            raise

    def _take(self, path: str) -> HostFile:
        def look(place: str) -> str | None:
            found = os.lstat(place)
            entry = self._judge(place, found, os.readlink(place) if stat.S_ISLNK(found.st_mode) else "")
            if not (stat.S_ISLNK(entry.mode) or stat.S_ISDIR(entry.mode) or stat.S_ISREG(entry.mode)):
                raise ImageError(f"{place} cannot be taken: it is neither a file nor a directory.")
            self._add(entry)
            return entry.target if stat.S_ISLNK(entry.mode) else None

        return self._entries.get(follow_links(path, look), HostFile("/", stat.S_IFDIR | 0o755))

    def _take_entry(self, path: str, top: str, held: HeldDirectory, status: os.stat_result) -> HostFile | None:
        target = held.link_target(os.path.basename(path)) if stat.S_ISLNK(status.st_mode) else ""
        entry = self._judge(path, status, target)
        if stat.S_ISLNK(entry.mode):
            self._add(entry)
            try:
                leads_to_file = stat.S_ISREG(os.stat(path).st_mode)
            except OSError:
                self.note(f"{path} leads to {entry.target}, which is not there")
                return None
            if leads_to_file:
                self._take(path)
            elif not (real := os.path.realpath(path)).startswith(f"{top}/"):
                self.note(f"{path} leads to {real}, which was not taken with it")
            return None
        if not stat.S_ISDIR(entry.mode) and not stat.S_ISREG(entry.mode):
            self.note(f"left out {path}: it is neither a file, a directory nor a link")
            return None
        self._add(entry)
        return entry

    def _judge(self, place: str, found: os.stat_result, target: str) -> HostFile:
        """The entry for what was found in a place; the one that is taken already, where there is one."""
        known = self._entries.get(place)
        if known is not None:
            return known
        if any(place == hidden or place.startswith(f"{hidden}/") for hidden in _NOT_KEPT):
            raise ImageError(
                f"{place} cannot be taken: a sandbox has its own {place[:5].rstrip('/')}, which hides an image's.",
                remedy="Copy or install it elsewhere, and name that.",
            )
        if stat.S_ISLNK(found.st_mode):
            return HostFile(place, stat.S_IFLNK | 0o777, target=target)
        if not stat.S_ISREG(found.st_mode):
            return HostFile(place, stat.S_IFMT(found.st_mode) | 0o755)
        if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            self.note(f"{place} is set-user-id or set-group-id here, and a plain program in the image")
        mode = 0o755 if found.st_mode & 0o111 else 0o644
        is_private = not found.st_mode & stat.S_IROTH
        return HostFile(place, stat.S_IFREG | mode, found.st_size, identity=_identity(found), is_private=is_private)

    def _directories(self, path: str) -> None:
        parts = path.split("/")[1:-1]
        for count in range(1, len(parts) + 1):
            above = "/" + "/".join(parts[:count])
            if above not in self._entries:
                self._add(HostFile(above, stat.S_IFDIR | 0o755))

    def _add(self, entry: HostFile) -> None:
        known = self._entries.get(entry.path)
        self.size += entry.size - (known.size if known is not None else 0)
        self._entries[entry.path] = entry
        if len(self._entries) % 64 == 0:
            self._check_stopped()
        if self.size > self._max_size:
            raise ImageError(
                f"What is to be taken has more than {self._max_size} bytes (at {entry.path}).",
                remedy="Allow more (--max-size, and engines.sandbox.max_image_size in the settings), or take less.",
            )
        if len(self._entries) > self._max_files:
            raise ImageError(
                f"What is to be taken has more than {self._max_files} files (at {entry.path}).",
                remedy="Allow more (--max-files), or take less.",
            )

    def _check_stopped(self) -> None:
        if self._is_stopped():
            raise ImageError("The image is not made: the work was stopped.")


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_dev, found.st_ino, found.st_mtime_ns


def open_taken(entry: HostFile) -> BinaryIO:
    """A file's content, if it is still the one that was looked at.

    Raises:
        ImageError: it has changed, or cannot be read.
    """
    if entry.content is not None:
        return io.BytesIO(entry.content)
    above, _, name = entry.path.rpartition("/")
    try:
        # By now it may be a pipe, on which to wait would be for ever; and it, or a directory above it, a link.
        held = open_path(above or "/")
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=held)
        finally:
            os.close(held)
    except OSError as exc:
        if exc.errno in CHANGED:
            raise _changed(entry.path) from exc
        raise ImageError(f"{entry.path} cannot be read: {exc.strerror}.", remedy=_remedy(exc)) from exc
    file = os.fdopen(descriptor, "rb")
    found = os.fstat(descriptor)
    if _identity(found) != entry.identity or found.st_size != entry.size:
        file.close()
        raise _changed(entry.path)
    return file


def _changed(path: str) -> ImageError:
    return ImageError(f"{path} was changed while it was being taken.", remedy="Try again.")


def _remedy(exc: OSError) -> str | None:
    if isinstance(exc, PermissionError):
        return "Run it as a user who may read that, or take less."
    return None
