"""Images out of files: what ``docker save`` and ``podman save`` write, OCI layouts, and OCI archives of them.

A layout is a directory of blobs under their digests (OCI image specification, "Image Layout"); an archive is the tar of
one. ``docker save`` writes a manifest.json of its own, and since Docker 25 a layout next to it.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from praxis_mcp.errors import ImageError
from praxis_mcp.images.layouts import Blobs, images_of
from praxis_mcp.images.manifests import MAX_DOCUMENT
from praxis_mcp.images.model import Reference, StoredImage
from praxis_mcp.images.paths_inside import open_file
from praxis_mcp.images.store import ImageStore
from praxis_mcp.images.streams import LAYER_PIECE, Measured, decompress

_MAX_MEMBERS = 20_000
_MAX_NESTED = 4
_MAX_HEADER = 256 * 1024
"""Bytes of all that stands before one file of an archive, as for layers."""
_MAX_ARCHIVE_HEADERS = 16 * 1024 * 1024
"""Bytes of all headers of an archive, which stay in memory while it is read."""


def import_file(
    store: ImageStore,
    file: Path | BinaryIO,
    name: str | None = None,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[str, StoredImage], ...]:
    """Store every image of an archive or layout.

    Args:
        store: where to.
        file: a tar archive, compressed or not, by its path or open; or the directory of an OCI layout.
        name: the image's name, where the file gives none or another one is wanted; the file then holds one image for
            this machine, or one that has this name already.
        is_stopped, on_progress: see `ImageStore.install`.

    Returns:
        each image with one of its names.

    Raises:
        ImageError: the file is missing, damaged or nothing of the kind, or an image in it has no name.
    """
    if name is not None:
        Reference.parse(name)
    what = str(file) if isinstance(file, Path) else "The archive"
    with _opened(store, file, what, is_stopped) as blobs:
        found: list[tuple[str, StoredImage]] = []
        for image in images_of(blobs, what, name):
            names = (name,) if name is not None else image.names
            if not names:
                raise ImageError(
                    f"{what} holds an image without a name.", remedy="Give it one: --name example.org/tool:1."
                )
            stored = store.install(image.content, names, is_stopped=is_stopped, on_progress=on_progress)
            found.append((str(Reference.parse(names[0])), stored))
    return tuple(found)


class _Directory:
    """A directory, perhaps somebody else's: as in an archive, its links lead to what is in it, and nowhere else."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def open(self, path: str) -> BinaryIO | None:
        return open_file(self._place, path)


class _Pieces:
    """A file that is never read whole, whatever the headers in it claim.

    Attributes:
        header: bytes that may still be read for a header; None while documents and layers are read.
    """

    def __init__(self, file: IO[bytes], what: str) -> None:
        self.header: int | None = _MAX_HEADER
        self._file = file
        self._what = what
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= (MAX_DOCUMENT + 1 if self.header is None else min(self.header, LAYER_PIECE)):
            raise ImageError(f"{self._what} is damaged: it has a header that is too large.")
        data = self._file.read(size)
        if self.header is not None:
            self.header -= len(data)
        return data


class _Tar:
    def __init__(self, file: IO[bytes], what: str) -> None:
        pieces = _Pieces(file, what)
        self._tar = tarfile.open(fileobj=cast(IO[bytes], pieces), mode="r:")  # noqa: SIM115 - nothing to be closed
        self._members: dict[str, tarfile.TarInfo] = {}
        left = _MAX_ARCHIVE_HEADERS
        while (member := self._tar.next()) is not None:
            left -= _MAX_HEADER - (pieces.header or 0)
            if left < 0 or len(self._members) >= _MAX_MEMBERS:
                raise ImageError(f"{what} has too many files, or too much about them: it is not an archive of images.")
            self._members[os.path.normpath(member.name)] = member
            pieces.header = _MAX_HEADER
        pieces.header = None

    def open(self, path: str) -> BinaryIO | None:
        name = os.path.normpath(path)
        for _ in range(_MAX_NESTED):
            member = self._members.get(name)
            if member is None:
                return None
            if member.isreg():
                return cast(BinaryIO, self._tar.extractfile(member))
            if not (member.issym() or member.islnk()):
                return None
            # A layer that an image has twice is a link to the first one.
            base = os.path.dirname(name) if member.issym() else ""  # noqa: PTH120
            name = os.path.normpath(f"{base}/{member.linkname}".lstrip("/"))
        return None


@contextmanager
def _opened(store: ImageStore, file: Path | BinaryIO, what: str, is_stopped: Callable[[], bool]) -> Iterator[Blobs]:
    try:
        if isinstance(file, Path) and file.is_dir():
            yield _Directory(file)
            return
        with ExitStack() as stack:
            source = stack.enter_context(file.open("rb")) if isinstance(file, Path) else file
            whole = stack.enter_context(_seekable(source, store, what, is_stopped))
            yield _Tar(whole, what)
    except (tarfile.TarError, EOFError, ValueError, IndexError, RecursionError) as exc:
        raise ImageError(
            f"{what} is not an archive of images, or is damaged: {exc}.",
            remedy="Write one by docker save IMAGE -o FILE, podman save, or skopeo copy … oci-archive:FILE.",
        ) from exc
    except OSError as exc:
        raise ImageError(f"{what} cannot be read: {exc.strerror or exc}.") from exc


@contextmanager
def _seekable(source: BinaryIO, store: ImageStore, what: str, is_stopped: Callable[[], bool]) -> Iterator[IO[bytes]]:
    """The archive where any part can be reached at once: a compressed one is written out first."""
    source.seek(0)
    start = source.read(2)
    source.seek(0)
    if start not in (b"\x1f\x8b", b"\x28\xb5", b"BZ", b"\xfd7"):
        yield source
        return
    limit = 2 * store.bounds.size
    try:
        place = store.temporary()
    except OSError as exc:
        raise store.unwritable(exc) from exc
    with tempfile.TemporaryFile(dir=place) as copy:
        plain = Measured(decompress(Measured(source, limit, what, is_stopped), what), limit, what, is_stopped)
        while data := plain.read(LAYER_PIECE):
            copy.write(data)
        copy.seek(0)
        yield copy
