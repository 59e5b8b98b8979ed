"""Images out of files: what ``docker save`` and ``podman save`` write, OCI layouts, and OCI archives of them.

A layout is a directory of blobs under their digests (OCI image specification, "Image Layout"); an archive is the tar of
one. ``docker save`` writes a manifest.json of its own, and since Docker 25 a layout beside it.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, cast

from praxis_mcp.errors import ImageError
from praxis_mcp.images.manifests import (
    MAX_DOCUMENT,
    Descriptor,
    Manifest,
    choose_manifest,
    descriptor,
    digest_of,
    is_index,
    read_config,
    read_document,
    read_manifest,
)
from praxis_mcp.images.model import ImageContent, Layer, StoredImage
from praxis_mcp.images.references import Reference
from praxis_mcp.images.store import ImageStore
from praxis_mcp.images.streams import PIECE, Measured, decompressed

_MAX_MEMBERS = 20_000
_MAX_NESTED = 4
_MAX_HEADER = 256 * 1024
"""Bytes of all that stands before one file of an archive, as for layers."""
_MAX_HEADERS = 16 * 1024 * 1024
"""Bytes of all headers of an archive, which stay in memory while it is read."""
# Where tools leave an image's whole name; the specification's own key often holds the tag alone.
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image in a file: what to store, and the names that it has there."""

    content: ImageContent
    names: tuple[str, ...]


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
        name: the image's name, where the file gives none or another one is wanted; the file then holds one image.
        is_stopped, on_progress: see `ImageStore.install`.

    Returns:
        each image with one of its names.

    Raises:
        ImageError: the file is missing, damaged or nothing of the kind, or an image in it has no name.
    """
    if name is not None:
        Reference.parse(name)
    what = str(file) if isinstance(file, Path) else "The archive"
    with _opened(store, file, what) as blobs:
        images = list(_images(blobs, what))
        if name is not None and len(images) != 1:
            raise ImageError(f"{what} holds {len(images)} images; one name cannot be all of theirs.")
        found: list[tuple[str, StoredImage]] = []
        for image in images:
            names = (name,) if name is not None else image.names
            if not names:
                raise ImageError(
                    f"{what} holds an image without a name.", remedy="Give it one: --name example.org/tool:1."
                )
            stored = store.install(image.content, names, is_stopped=is_stopped, on_progress=on_progress)
            found.append((str(Reference.parse(names[0])), stored))
    return tuple(found)


class _Blobs(Protocol):
    """The files of an archive or layout."""

    def open(self, path: str) -> BinaryIO | None: ...


class _Directory:
    def __init__(self, place: Path) -> None:
        self._place = place

    def open(self, path: str) -> BinaryIO | None:
        try:
            return (self._place / path).open("rb")
        except (FileNotFoundError, IsADirectoryError):
            return None


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
        if not 0 <= size <= (MAX_DOCUMENT + 1 if self.header is None else min(self.header, PIECE)):
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
        left = _MAX_HEADERS
        while (member := self._tar.next()) is not None:
            left -= _MAX_HEADER - (pieces.header or 0)
            if left < 0 or len(self._members) >= _MAX_MEMBERS:
                raise ImageError(f"{what} holds too many files, or too much about them: it is no archive of images.")
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
def _opened(store: ImageStore, file: Path | BinaryIO, what: str) -> Iterator[_Blobs]:
    try:
        if isinstance(file, Path) and file.is_dir():
            yield _Directory(file)
            return
        with ExitStack() as stack:
            source = stack.enter_context(file.open("rb")) if isinstance(file, Path) else file
            whole = stack.enter_context(_seekable(source, store, what))
            yield _Tar(whole, what)
    except (tarfile.TarError, EOFError, ValueError, IndexError, RecursionError) as exc:
        raise ImageError(
            f"{what} is no archive of images, or is damaged: {exc}.",
            remedy="Write one by docker save IMAGE -o FILE, podman save, or skopeo copy … oci-archive:FILE.",
        ) from exc
    except OSError as exc:
        raise ImageError(f"{what} cannot be read: {exc.strerror or exc}.") from exc


@contextmanager
def _seekable(source: BinaryIO, store: ImageStore, what: str) -> Iterator[IO[bytes]]:
    """The archive where any part can be reached at once: a compressed one is written out first."""
    source.seek(0)
    start = source.read(2)
    source.seek(0)
    if start not in (b"\x1f\x8b", b"\x28\xb5", b"BZ", b"\xfd7"):
        yield source
        return
    limit = 2 * store.bounds.size
    with tempfile.TemporaryFile(dir=store.temporary()) as copy:
        plain = Measured(decompressed(Measured(source, limit, what), what), limit, what)
        while data := plain.read(PIECE):
            copy.write(data)
        copy.seek(0)
        yield copy


def _images(blobs: _Blobs, what: str) -> Iterator[ArchivedImage]:
    if (layout := _document(blobs, "index.json", what)) is not None and blobs.open("oci-layout") is not None:
        yield from _of_layout(blobs, layout, what)
    elif (listed := _read(blobs, "manifest.json", what)) is not None:
        yield from _of_docker(blobs, listed, what)
    else:
        raise ImageError(
            f"{what} is no archive of images: it has neither index.json nor manifest.json.",
            remedy="Write one by docker save IMAGE -o FILE (not docker export), podman save, or skopeo copy.",
        )


def _of_layout(blobs: _Blobs, layout: Mapping[str, Any], what: str) -> Iterator[ArchivedImage]:
    entries = layout.get("manifests")
    if not isinstance(entries, list) or not entries:
        raise ImageError(f"{what} holds no images.")
    by_manifest: dict[str, tuple[Manifest, list[str]]] = {}
    for entry in entries:
        found = _resolved(blobs, entry, what)
        names = by_manifest.setdefault(found[0], (found[1], []))[1]
        notes = entry.get("annotations")
        for key in _NAMES if isinstance(notes, dict) else ():
            if isinstance(name := notes.get(key), str) and _is_whole(name):
                names.append(name)
                break
    for digest, (manifest, names) in by_manifest.items():
        config = _blob(blobs, manifest.config, what)
        layers = tuple(_layer(blobs, _path(part.digest), part.digest, what) for part in manifest.layers)
        yield ArchivedImage(ImageContent(config, layers, digest), tuple(dict.fromkeys(names)))


def _resolved(blobs: _Blobs, entry: Any, what: str) -> tuple[str, Manifest]:
    """An entry of the index down to the manifest for this machine, and that one's digest."""
    part = descriptor(entry, what)
    for _ in range(_MAX_NESTED):
        document = read_document(_blob(blobs, part, what), what)
        if not is_index(document):
            return part.digest, read_manifest(document, what)
        part = choose_manifest(document, what)
    raise ImageError(f"{what} nests lists of images more than {_MAX_NESTED} deep.")


def _of_docker(blobs: _Blobs, listed: bytes, what: str) -> Iterator[ArchivedImage]:
    # read_document wants an object: the list is put into one.
    entries = read_document(b'{"images":' + listed + b"}", what)["images"]
    for entry in entries if isinstance(entries, list) else ():
        paths = entry.get("Layers") if isinstance(entry, dict) else None
        config = _read(blobs, str(entry.get("Config")), what) if isinstance(entry, dict) else None
        if config is None or not isinstance(paths, list):
            raise ImageError(f"{what} is damaged: it lacks an image's configuration.")
        read_config(config, what)
        layers = tuple(_layer(blobs, str(path), None, what) for path in paths)
        tags = entry.get("RepoTags") or []
        yield ArchivedImage(ImageContent(config, layers), tuple(str(tag) for tag in tags))


def _layer(blobs: _Blobs, path: str, digest: str | None, what: str) -> Layer:
    def open_it() -> BinaryIO:
        source = blobs.open(path)
        if source is None:
            raise ImageError(f"{what} is damaged: it lacks the layer {path}.")
        return source

    return Layer(open_it, digest)


def _path(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def _blob(blobs: _Blobs, part: Descriptor, what: str) -> bytes:
    data = _read(blobs, _path(part.digest), what)
    if data is None or digest_of(data) != part.digest:
        raise ImageError(f"{what} is damaged: {part.digest} is {'missing' if data is None else 'altered'}.")
    return data


def _document(blobs: _Blobs, path: str, what: str) -> Mapping[str, Any] | None:
    data = _read(blobs, path, what)
    return None if data is None else read_document(data, f"{path} of {what}")


def _read(blobs: _Blobs, path: str, what: str) -> bytes | None:
    source = blobs.open(path)
    if source is None:
        return None
    with source:
        data = source.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise ImageError(f"{path} of {what} is larger than {MAX_DOCUMENT} bytes.")
    return data


def _is_whole(name: str) -> bool:
    """Whether it is a reference rather than a tag alone."""
    if "/" not in name and ":" not in name:
        return False
    try:
        Reference.parse(name)
    except ImageError:
        return False
    return True
