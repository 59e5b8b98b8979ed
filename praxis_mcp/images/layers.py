"""Layers unpacked into a root file system (OCI image specification, "Image Layer Filesystem Changeset").

A layer is somebody else's archive. Whatever it names stays below the root: links are followed as they would be inside
the image, never outside. Devices are left out, owners are ignored (everything belongs to the server's user, the one
user that a sandbox maps), set-user-id bits are dropped.
"""

# Paths of another file system, as text, and thousands of them.
# ruff: noqa: PTH101, PTH102, PTH108, PTH118, PTH208, PTH211

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from praxis_mcp.errors import ImageError
from praxis_mcp.images.paths_inside import above, below, is_directory, open_top, resolve
from praxis_mcp.images.streams import LAYER_PIECE, Measured, cancelled_error, decompress
from praxis_mcp.support.removal import remove_tree
from praxis_mcp.support.rooted import CHANGED, descend

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
_MAX_LINK = 4095
_MAX_IMAGE_DEPTH = 128
_MAX_HEADER = 256 * 1024
"""Bytes of all that stands before one entry's content: long names, pax records, maps of sparse files."""
_MAX_PATH = 4096
_NAME_BYTES = 256
"""Bytes of its path that an entry may take on the average: paths stay in memory while a layer is unpacked."""
_HOSTS = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_STOP_CHECK_ENTRIES = 64
"""Entries after which it is looked whether the work was stopped."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an image may take.

    Attributes:
        size: bytes of all its layers together, unpacked.
        entries: files, directories and links of all its layers together.
    """

    size: int = 16 * 1024**3
    entries: int = 1_000_000


@dataclass(slots=True)
class _Created:
    """What one layer has brought, the directories above that, and the directories that lower layers have no part in."""

    paths: set[str] = field(default_factory=set)
    above: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)

    def add(self, path: str) -> None:
        self.paths.add(path)
        while (path := path.rpartition("/")[0]) and path not in self.above:
            self.above.add(path)

    def is_ours(self, path: str) -> bool:
        """Whether nothing of lower layers can be below: then no whiteout is looked at again, of which a layer may have
        as many as it likes."""
        return path in self.opaque or "/" in self.opaque or any(place in self.opaque for place in above(path))


@dataclass(slots=True)
class RootBuilder:
    """Applies layers to a directory, in order.

    Attributes:
        root: an empty directory of ours alone.
        bounds: see `Bounds`.
        is_stopped: asked now and then; True ends the work.
        size, entries: what was unpacked so far.
    """

    root: Path
    bounds: Bounds
    is_stopped: Callable[[], bool] = lambda: False
    size: int = 0
    entries: int = 0
    _read: int = 0
    _names: int = 0
    _times: dict[str, tuple[int, int]] = field(default_factory=dict)
    _parents: dict[str, str] = field(default_factory=dict)

    def apply(self, source: BinaryIO, *, diff_id: str, digest: str | None, what: str) -> None:
        """Unpack one layer on top of what there is.

        Args:
            source: the layer, compressed or not.
            diff_id: digest that it must have uncompressed.
            digest: digest that it must have as it is; None where nothing says.
            what: named in errors.

        Raises:
            ImageError: it is damaged, malicious, too large, or another than it should be.
        """
        raw = Measured(source, self.bounds.size, what, self.is_stopped)
        room = self.bounds.size - self._read
        plain = Measured(decompress(raw, what), room, what, self.is_stopped)
        try:
            self._unpack(plain, what)
            plain.drain()
            raw.drain()
        except tarfile.TarError as exc:
            raise ImageError(f"{what} is damaged or cut short: {exc}.") from exc
        except RecursionError as exc:
            raise ImageError(f"{what} is damaged: its headers lead from one to the next without end.") from exc
        except OSError as exc:
            remedy = "Make room, or choose another engines.sandbox.store." if exc.errno in _FULL else None
            raise ImageError(f"{what} cannot be unpacked: {exc.strerror}.", remedy=remedy) from exc
        except (ValueError, OverflowError, IndexError) as exc:  # headers with absurd numbers, or cut short
            raise ImageError(f"{what} is damaged: {exc}.") from exc
        self._read += plain.tell()
        for expected, got in ((digest, raw.digest), (diff_id, plain.digest)):
            if expected is not None and expected != got:
                raise ImageError(
                    f"{what} is not what the image names: its digest is {got}, not {expected}.",
                    remedy="It was damaged or altered on its way: fetch it again.",
                )

    def finish(self) -> None:
        """Times of directories, which every entry in them has changed; and what a sandbox mounts on.

        Raises:
            ImageError: the disk is full, links of the image lead nowhere, or the work was stopped.
        """
        try:
            _add_fixtures(self.root, lambda path: self._directory(path, _Created()), self._clear)
            with open_top(self.root) as top:
                for number, path in enumerate(sorted(self._times, key=len, reverse=True)):
                    if number % _STOP_CHECK_ENTRIES == 0 and self.is_stopped():
                        raise cancelled_error()
                    try:
                        # A later entry may have put a link on the way to it, which leads to a directory of the host.
                        with descend(top, path) as here:
                            mode, time = self._times[path]
                            os.fchmod(here.descriptor, mode)
                            os.utime(here.descriptor, ns=(time, time))
                    except OSError as exc:
                        if exc.errno not in CHANGED:
                            raise
        except OSError as exc:
            raise ImageError(f"The image cannot be unpacked: {exc.strerror}.") from exc

    def _unpack(self, plain: Measured, what: str) -> None:
        created = _Created()
        plain.header = _MAX_HEADER  # the first one is read at once
        with tarfile.TarFile(fileobj=plain, mode="r") as tar:  # pyright: ignore[reportArgumentType] - it only reads
            while (member := self._next(tar, plain)) is not None:
                self._count(member.name)
                if self.entries % _STOP_CHECK_ENTRIES == 0 and self.is_stopped():
                    raise cancelled_error()
                self._take(tar, member, created, what)

    def _count(self, name: str) -> None:
        self.entries += 1
        self._names += len(name)
        if self.entries > self.bounds.entries:
            raise ImageError(f"The image has more than {self.bounds.entries} files.")
        if self._names > self.bounds.entries * _NAME_BYTES or len(name) > _MAX_PATH:
            raise ImageError("The image has paths that are too long.")

    @staticmethod
    def _next(tar: tarfile.TarFile, plain: Measured) -> tarfile.TarInfo | None:
        plain.header = _MAX_HEADER
        member = tar.next()
        plain.header = None
        # Else every header stays in memory, and global ones pile up; container engines do not heed those at all.
        tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
        tar.pax_headers.clear()  # pyright: ignore[reportAttributeAccessIssue]
        return member

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, created: _Created, what: str) -> None:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise ImageError(f"{what} names {member.name[:200]!r}, which leads out of the image.")
        if len(parts) > _MAX_IMAGE_DEPTH:
            raise _too_deep()
        if not parts:
            return  # the root itself
        name = parts.pop()
        parent = self._directory("/".join(parts), created)
        if name.startswith(_WHITEOUT):
            self._whiteout(parent, name, created)
            return
        path = f"{parent.rstrip('/')}/{name}"
        place = below(self.root, path)
        mode = member.mode & 0o1777
        if member.isdir():
            if not is_directory(place):
                self._clear(place)
                os.mkdir(place, 0o700)
            # The user who runs the server owns all of it, and must be able to enter, fill and remove it.
            os.chmod(place, mode | 0o700)
            self._times[path] = (mode | 0o700, _nanoseconds(member))
        elif member.isreg():
            self._clear(place)
            self._write(tar, member, place, mode | 0o600)
        elif member.issym():
            if not 0 < len(os.fsencode(member.linkname)) <= _MAX_LINK:
                raise ImageError(f"{what} has a link without a usable target.")
            self._clear(place)
            os.symlink(member.linkname, place)
        elif member.islnk():
            self._link(member, place, what)
        elif member.isfifo():
            self._clear(place)
            os.mkfifo(place, mode | 0o600)
        else:  # a device
            return
        created.add(path)

    def _directory(self, path: str, created: _Created) -> str:
        """The real directory that an entry's parent is, made where it is missing."""
        known = self._parents.get(path)
        if known is not None:
            return known
        real = resolve(self.root, path)
        if real.count("/") > _MAX_IMAGE_DEPTH:  # links make short names lead deep
            raise _too_deep()
        made = ""
        for part in real.split("/")[1:] if real != "/" else ():
            made += f"/{part}"
            place = below(self.root, made)
            if not is_directory(place):
                self._clear(place)
                os.mkdir(place, 0o755)
                self._count(made)
                created.add(made)
        self._parents[path] = real
        return real

    def _clear(self, place: str) -> None:
        """Make room for an entry, whatever was there."""
        try:
            kind = os.lstat(place).st_mode
        except OSError:
            return
        if (failure := remove_tree(Path(place))) is not None:
            raise failure
        if stat.S_ISDIR(kind) or stat.S_ISLNK(kind):  # what paths may lead through
            self._parents.clear()

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, place: str, mode: int) -> None:
        self.size += member.size
        if member.size < 0 or self.size > self.bounds.size:
            raise ImageError(
                f"The image is larger than {self.bounds.size} bytes.",
                remedy="Use a smaller image, or raise engines.sandbox.max_image_size in the settings.",
            )
        content = tar.extractfile(member)
        assert content is not None
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file, content:
            while data := content.read(LAYER_PIECE):  # of a sparse file, much that is read from nowhere
                if self.is_stopped():
                    raise cancelled_error()
                file.write(data)
            os.fchmod(descriptor, mode)
        time = _nanoseconds(member)
        os.utime(place, ns=(time, time))  # Python takes its cached bytecode by the source's time

    def _link(self, member: tarfile.TarInfo, place: str, what: str) -> None:
        head, _, tail = member.linkname.rstrip("/").rpartition("/")
        if ".." in member.linkname.split("/"):
            raise ImageError(f"{what} links to {member.linkname[:200]!r}, which leads out of the image.")
        target = below(self.root, f"{resolve(self.root, head).rstrip('/')}/{tail}")
        try:
            is_file = stat.S_IFMT(os.lstat(target).st_mode) in (stat.S_IFREG, stat.S_IFLNK)
        except OSError:
            is_file = False
        if not is_file:
            raise ImageError(f"{what} has a hard link to {member.linkname[:200]!r}, which is not a file of the image.")
        if target != place:
            self._clear(place)
            os.link(target, place, follow_symlinks=False)

    def _whiteout(self, parent: str, name: str, created: _Created) -> None:
        """Remove what lower layers have; never what this one brings, before or after."""
        if name == _OPAQUE:
            self._empty(parent, created)
        elif not name.startswith(_AUFS):  # what AUFS kept for itself
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise ImageError(f"A layer of the image removes {name!r}, which is not a file.")
            self._hide(f"{parent.rstrip('/')}/{hidden}", created)

    def _hide(self, path: str, created: _Created) -> None:
        place = below(self.root, path)
        if path not in created.paths and path not in created.above:
            self._clear(place)
        elif is_directory(place):
            self._empty(path, created)

    def _empty(self, path: str, created: _Created) -> None:
        """Remove what lower layers have in a directory: done once, there is nothing of theirs in it any more."""
        if created.is_ours(path):
            return
        for entry in os.listdir(below(self.root, path)):
            self._hide(f"{path.rstrip('/')}/{entry}", created)
        created.opaque.add(path)


def _too_deep() -> ImageError:
    return ImageError(f"The image has directories more than {_MAX_IMAGE_DEPTH} deep.")


def _nanoseconds(member: tarfile.TarInfo) -> int:
    """Its time, within what every file system takes."""
    return int(min(max(float(member.mtime), 0.0), 2.0**32)) * 1_000_000_000


def _add_fixtures(root: Path, make_directory: Callable[[str], str], clear: Callable[[str], None]) -> None:
    """Add what every root file system needs and images may lack: directories to mount on, and a file of hosts.

    Args:
        root: the root file system.
        make_directory: makes a directory of it, and those above; returns where it really is.
        clear: removes what is at a place.

    Raises:
        ImageError: its links go round in circles, or lead too deep.
        OSError: it cannot be written.
    """
    for name in ("proc", "dev", "sys"):
        place = os.path.join(root, name)
        if not is_directory(place):
            clear(place)
            os.mkdir(place, 0o755)
    for name in ("tmp", "etc"):
        if not os.path.lexists(below(root, resolve(root, name))):
            place = below(root, make_directory(name))
            if name == "tmp":
                os.chmod(place, 0o1777)  # noqa: S103 - as everywhere
    _add_hosts(root)


def _add_hosts(root: Path) -> None:
    # Container engines write it for every container; here, with `network: none` or `host`, one is needed.
    place = below(root, resolve(root, "etc/hosts"))
    with contextlib.suppress(OSError):  # /etc is not a directory, say: the image's own affair
        if os.path.lexists(place):
            found = os.lstat(place)
            if not stat.S_ISREG(found.st_mode) or found.st_size:  # to open a pipe would wait for ever for its reader
                return
            os.unlink(place)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_HOSTS)
