"""Which images the documents of an archive or layout list, and which of them are for this machine.

A list may hold what is not an image (BuildKit's attestations, artifacts such as an SBOM), one image for several
platforms, flat or in indexes of its own, and several images. What is for other platforms is often not even there:
``docker save`` writes the index of all of them, and the layers of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from praxis_mcp.errors import ImageError
from praxis_mcp.images.manifests import (
    MAX_DOCUMENT,
    Descriptor,
    Platform,
    descriptor,
    digest_of,
    is_image,
    is_index,
    may_be_image,
    not_for_us,
    platform_of,
    platform_of_config,
    read_document,
    read_manifest,
)
from praxis_mcp.images.model import ImageContent, Layer, Reference
from praxis_mcp.support.logs import logger

_MAX_NESTED = 4
_MAX_INDEX_ENTRIES = 10_000
"""Entries of all indexes of one archive together, each counted as often as it is listed."""
_MAX_DOCUMENTS = 256 * 1024 * 1024
"""Bytes of all documents of one archive together, each counted as often as it is read."""
# Where tools leave an image's whole name; the specification's own key often holds the tag alone.
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Blobs(Protocol):
    """The files of an archive or layout."""

    def open(self, path: str) -> BinaryIO | None:
        """A file, where there is one; links are followed, never out of the archive."""
        ...


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image in a file: what to store, and the names that it has there."""

    content: ImageContent
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Offer:
    """An image that is listed.

    Attributes:
        key: the same for the same image.
        names: those that its file gives it.
        platform: what it is made for.
        content: reads the rest of it.
    """

    key: str
    names: tuple[str, ...]
    platform: Platform
    content: Callable[[], ImageContent]


def images_of(blobs: Blobs, what: str, name: str | None) -> list[ArchivedImage]:
    """The images for this machine, each once.

    Args:
        blobs: the archive.
        what: named in errors.
        name: a name that one image is to have; None for all images, with the names that they have.

    Raises:
        ImageError: there is none, the archive is damaged, or `name` could be that of several.
    """
    offers = _offers(_Documents(blobs, what), what)
    fitting = [offer for offer in offers if offer.platform.fits]
    if not fitting:
        raise not_for_us(what, [offer.platform for offer in offers])
    chosen = _best(fitting)
    if name is None:
        _warn_of_others(offers, chosen, what)
    elif len(chosen) > 1:
        chosen = [_the_one(chosen, name, what)]
    return [ArchivedImage(offer.content(), offer.names) for offer in chosen]


def _best(offers: list[_Offer]) -> list[_Offer]:
    """Of each image (what has the same names, or none and stands in one list) the best variant; with all its names."""
    nameless = [offer for offer in offers if not offer.names]
    by_name: dict[tuple[str, ...], _Offer] = {}
    best: dict[str, _Offer] = {}
    for offer in offers:
        group = offer.names
        if group and (group not in by_name or offer.platform.rank < by_name[group].platform.rank):
            by_name[group] = offer
    lowest = min((offer.platform.rank for offer in nameless), default=0)
    for offer in (*by_name.values(), *(offer for offer in nameless if offer.platform.rank == lowest)):
        known = best.get(offer.key)
        names = (*(known.names if known else ()), *offer.names)
        best[offer.key] = _Offer(offer.key, tuple(dict.fromkeys(names)), offer.platform, offer.content)
    return list(best.values())


def _the_one(chosen: list[_Offer], name: str, what: str) -> _Offer:
    wanted = Reference.parse(name)
    having = [offer for offer in chosen if wanted in map(Reference.parse, filter(_is_whole, offer.names))]
    if len(having) == 1:
        return having[0]
    known = ", ".join(dict.fromkeys(part for offer in chosen for part in offer.names))
    raise ImageError(
        f"{what} holds {len(chosen)} images for this machine; one name cannot be all of theirs.",
        remedy=f"Import it without a name: it has {known[:500]}." if known else "Write an archive of one image.",
    )


def _warn_of_others(offers: list[_Offer], chosen: list[_Offer], what: str) -> None:
    """A name that is asked for later and was in the file must not be missing without a word."""
    taken = {name for offer in chosen for name in offer.names}
    left = {name: offer.platform for offer in offers for name in offer.names if name not in taken}
    if left:
        logger.warning(
            "{} is for other machines in part; left aside: {}",
            what,
            ", ".join(f"{name!r} ({str(platform)!r})" for name, platform in list(left.items())[:20]),
        )


def _offers(documents: _Documents, what: str) -> list[_Offer]:
    if documents.read("oci-layout") is not None and (layout := documents.read("index.json")) is not None:
        found = list(_Listing(documents, what).offers(read_document(layout, f"index.json of {what}")))
    elif (listed := documents.read("manifest.json")) is not None:
        found = list(_of_docker(documents, listed, what))
    else:
        raise ImageError(
            f"{what} is not an archive of images: it has neither index.json nor manifest.json.",
            remedy="Write one by docker save IMAGE -o FILE (not docker export), podman save, or skopeo copy.",
        )
    if not found:
        raise ImageError(f"{what} holds no images.", remedy="Write one by docker save IMAGE -o FILE, or podman save.")
    return found


class _Documents:
    """The documents of an archive: small files, read whole, and not more of them than any image has."""

    def __init__(self, blobs: Blobs, what: str) -> None:
        self._blobs = blobs
        self._what = what
        self._left = _MAX_DOCUMENTS

    def read(self, path: str) -> bytes | None:
        """One by its path; None where there is none."""
        source = self._blobs.open(path)
        if source is None:
            return None
        with source:
            data = source.read(MAX_DOCUMENT + 1)
        if len(data) > MAX_DOCUMENT:
            raise ImageError(f"{path[:200]!r} of {self._what} is larger than {MAX_DOCUMENT} bytes.")
        self._left -= len(data)
        if self._left < 0:
            raise ImageError(f"The documents of {self._what} are larger than {_MAX_DOCUMENTS} bytes together.")
        return data

    def blob(self, part: Descriptor) -> bytes:
        """One by its digest, which it must have."""
        data = self.read(_path(part.digest))
        if data is None or digest_of(data) != part.digest:
            raise ImageError(f"{self._what} is damaged: {part.digest} is {'missing' if data is None else 'altered'}.")
        return data

    def layer(self, path: str, digest: str | None) -> Layer:
        """A layer, opened when its turn comes."""

        def open_it() -> BinaryIO:
            source = self._blobs.open(path)
            if source is None:
                raise ImageError(f"{self._what} is damaged: it lacks the layer {path[:200]!r}.")
            return source

        return Layer(open_it, digest)


class _Listing:
    """The images that a layout's index leads to; each document is read once, however often it is listed."""

    def __init__(self, documents: _Documents, what: str) -> None:
        self._documents = documents
        self._what = what
        self._left = _MAX_INDEX_ENTRIES
        self._platforms: dict[str, Platform | None] = {}
        self._indexes: dict[str, list[Any]] = {}

    def offers(self, layout: Mapping[str, Any]) -> Iterator[_Offer]:
        """Every image, for whichever platform."""
        for entry in _entries(layout):
            names = tuple(_names(entry))
            for part, platform in self._images(entry, _MAX_NESTED):
                yield _Offer(part.digest, names, platform, lambda part=part: self._content(part))

    def _images(self, entry: Any, depth: int) -> Iterator[tuple[Descriptor, Platform]]:
        self._left -= 1
        if self._left < 0:
            raise ImageError(f"{self._what} lists more than {_MAX_INDEX_ENTRIES} images.")
        if not may_be_image(entry):
            return
        part = descriptor(entry, self._what)
        platform = platform_of(entry)
        if platform is not None and not platform.fits:
            yield part, platform  # its files may not be there
            return
        if part.digest not in self._indexes and part.digest not in self._platforms:
            self._look_into(part)
        if part.digest in self._indexes:
            if depth == 0:
                raise ImageError(f"{self._what} nests lists of images more than {_MAX_NESTED} deep.")
            for inner in self._indexes[part.digest]:
                yield from self._images(inner, depth - 1)
        elif (own := self._platforms[part.digest]) is not None:
            yield part, platform or own

    def _look_into(self, part: Descriptor) -> None:
        document = read_document(self._documents.blob(part), self._what)
        if is_index(document):
            self._indexes[part.digest] = _entries(document)
        elif is_image(document):
            config = self._documents.blob(read_manifest(document, self._what).config)
            self._platforms[part.digest] = platform_of_config(config, self._what)
        else:
            self._platforms[part.digest] = None

    def _content(self, part: Descriptor) -> ImageContent:
        manifest = read_manifest(read_document(self._documents.blob(part), self._what), self._what)
        config = self._documents.blob(manifest.config)
        layers = (self._documents.layer(_path(layer.digest), layer.digest) for layer in manifest.layers)
        return ImageContent(config, tuple(layers), part.digest)


def _entries(index: Mapping[str, Any]) -> list[Any]:
    found = index.get("manifests")
    return found if isinstance(found, list) else []


def _names(entry: Any) -> Iterator[str]:
    notes = entry.get("annotations") if isinstance(entry, dict) else None
    if not isinstance(notes, dict):
        return
    for key in _NAMES:
        if isinstance(name := notes.get(key), str) and _is_whole(name):
            yield name
            return


def _of_docker(documents: _Documents, listed: bytes, what: str) -> Iterator[_Offer]:
    # read_document wants an object: the list is put into one.
    entries = read_document(b'{"images":' + listed + b"}", what)["images"]
    if not isinstance(entries, list) or len(entries) > _MAX_INDEX_ENTRIES:
        raise ImageError(f"{what} does not hold a list of at most {_MAX_INDEX_ENTRIES} images.")
    for item in entries:
        entry = item if isinstance(item, dict) else {}
        config, paths = documents.read(str(entry.get("Config"))), entry.get("Layers")
        if config is None or not isinstance(paths, list):
            raise ImageError(f"{what} is damaged: it lacks an image's configuration.")
        tags = entry.get("RepoTags")
        names = tuple(str(tag) for tag in tags) if isinstance(tags, list) else ()
        layers = tuple(documents.layer(str(path), None) for path in paths)
        content = ImageContent(config, layers)
        yield _Offer(digest_of(config), names, platform_of_config(config, what), lambda it=content: it)


def _path(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def _is_whole(name: str) -> bool:
    """Whether it is a reference rather than a tag alone."""
    if "/" not in name and ":" not in name:
        return False
    try:
        Reference.parse(name)
    except ImageError:
        return False
    return True
