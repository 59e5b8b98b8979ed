"""The documents of an image: index, manifest and configuration (OCI image specification 1.1, Docker schema 2)."""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from praxis_mcp.errors import ImageError
from praxis_mcp.images.model import DIGEST

MAX_DOCUMENT = 4 * 1024 * 1024
"""Bytes of a manifest, index or configuration; the distribution specification asks registries to take that much."""
MAX_LAYERS = 512
MAX_VOLUMES = 128
"""Volumes that an image may name: each is a file system of its own in every sandbox."""
_MAX_PATH = 4096

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

# What `uname -m` calls a machine → what images call it (GOARCH).
_ARCHITECTURES = {
    "x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "armv7l": "arm", "armv6l": "arm",
    "i386": "386", "i686": "386", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64",
}  # fmt: skip
# Variants of an architecture from the one that most machines run; an image without one counts as the first.
_VARIANTS = {
    "amd64": ("v1", "v2", "v3", "v4"),
    "arm64": ("v8", "v9"),
    "arm": ("v7", "v6", "v5") if platform.machine().lower() != "armv6l" else ("v6", "v5"),
}
_CONFIG_TYPES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_ATTESTATION = "vnd.docker.reference.type"
"""BuildKit's annotation of what says something about another image of the same index (provenance, an SBOM)."""


def architecture() -> str:
    """What images call this machine."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def digest_of(data: bytes) -> str:
    """``sha256:…`` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A document or layer by its digest, with the size in bytes that it must have."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is made for, in the words of images: ``linux``, ``amd64``, and perhaps a variant (``v3``)."""

    system: str
    architecture: str
    variant: str = ""

    @property
    def fits(self) -> bool:
        """Whether it runs on this machine."""
        if (self.system, self.architecture) != ("linux", architecture()):
            return False
        # Older processors of 32-bit ARM lack instructions that any program uses; elsewhere variants are about speed.
        return self.architecture != "arm" or not self.variant or self.variant in _VARIANTS["arm"]

    @property
    def rank(self) -> int:
        """Which of several that fit is the best: the lowest."""
        variants = _VARIANTS.get(self.architecture, ())
        if self.variant in variants:
            return variants.index(self.variant)
        return len(variants) if self.variant else 0

    def __str__(self) -> str:
        return "/".join(filter(None, (self.system, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image's parts."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of how it is run.

    Attributes:
        diff_ids: digests of its layers, uncompressed, in order.
        env: its variables.
        entrypoint, command: its words, both empty where it names none.
        working_dir: absolute; ``/`` by default.
        user: ``name``, ``uid``, ``name:group``, …; empty is root.
        volumes: directories that it expects to be writable.
    """

    diff_ids: tuple[str, ...]
    env: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    volumes: tuple[str, ...] = ()


def read_document(data: bytes, what: str) -> Mapping[str, Any]:
    """A JSON object out of an image.

    Raises:
        ImageError: it is too large, or no JSON object.
    """
    if len(data) > MAX_DOCUMENT:
        raise ImageError(f"{what} is larger than {MAX_DOCUMENT} bytes.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ImageError(f"{what} is not JSON: {exc}.") from exc
    if not isinstance(value, dict):
        raise ImageError(f"{what} holds no JSON object.")
    return value


def is_index(document: Mapping[str, Any]) -> bool:
    """Whether it lists manifests by platform rather than being one."""
    return document.get("mediaType") in INDEX_TYPES or ("manifests" in document and "layers" not in document)


def choose_manifest(index: Mapping[str, Any], what: str) -> Descriptor:
    """The manifest for this machine; what is not an image (an attestation, an artifact) is left aside.

    Raises:
        ImageError: there is none; says which platforms there are.
    """
    offered: list[Platform] = []
    best: tuple[int, Descriptor] | None = None
    fallback: Descriptor | None = None
    for item in _list(index, "manifests", what):
        if not may_be_image(item):
            continue
        found = platform_of(item)
        if found is None:  # an index of one image often leaves it out
            fallback = fallback or descriptor(item, what)
            continue
        offered.append(found)
        if found.fits and (best is None or found.rank < best[0]):
            best = found.rank, descriptor(item, what)
    if best is not None:
        return best[1]
    if fallback is not None:
        return fallback
    raise not_for_us(what, offered)


def not_for_us(what: str, offered: Iterable[Platform]) -> ImageError:
    """The error about something that has no image for this machine, only for other platforms."""
    others = ", ".join(dict.fromkeys(map(str, itertools.islice(offered, 20))))
    return ImageError(
        f"{what} has nothing for linux/{architecture()}, only {others or 'nothing at all'}.",
        remedy="Choose an image that is built for this machine.",
    )


def may_be_image(item: Any) -> bool:
    """Whether an entry of an index may be an image (or an index of images) by what the entry itself says: neither an
    attestation (BuildKit marks these, or gives them the platform unknown/unknown) nor an artifact."""
    if not isinstance(item, dict):
        return True  # which `descriptor` refuses
    notes = item.get("annotations")
    if (isinstance(notes, dict) and _ATTESTATION in notes) or item.get("artifactType") not in (None, *_CONFIG_TYPES):
        return False
    if item.get("mediaType", MANIFEST_TYPES[0]) not in (*MANIFEST_TYPES, *INDEX_TYPES):
        return False
    found = platform_of(item)
    return found is None or "unknown" not in (found.system, found.architecture)


def is_image(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is an image's, rather than an artifact's (OCI image specification 1.1, "Guidelines for
    Artifact Usage"): its configuration has an image's type."""
    config = manifest.get("config")
    kind = config.get("mediaType") if isinstance(config, dict) else None
    return kind is None or kind in _CONFIG_TYPES


def platform_of(item: Mapping[str, Any]) -> Platform | None:
    """The platform that an entry of an index names; None where it names none."""
    found = item.get("platform")
    if not isinstance(found, dict) or not found:
        return None
    return Platform(*(str(found.get(key) or "") for key in ("os", "architecture", "variant")))


def platform_of_config(data: bytes, what: str) -> Platform:
    """The platform that an image's configuration names.

    Raises:
        ImageError: it is not a JSON object.
    """
    document = read_document(data, what)
    system, machine = document.get("os") or "linux", document.get("architecture") or architecture()
    return Platform(str(system), str(machine), str(document.get("variant") or ""))


def read_manifest(document: Mapping[str, Any], what: str) -> Manifest:
    """An image's manifest.

    Raises:
        ImageError: it is malformed, or of a kind that is not run here.
    """
    if document.get("schemaVersion") != 2 or "config" not in document:
        raise ImageError(f"{what} is not an image manifest of version 2.", remedy="Build or push the image again.")
    if not is_image(document):
        kind = str(document["config"]["mediaType"])
        raise ImageError(f"{what} is not an image: it holds {kind[:100]!r}.", remedy="Name the image itself.")
    layers = _list(document, "layers", what)
    if len(layers) > MAX_LAYERS:
        raise ImageError(f"{what} has {len(layers)} layers; {MAX_LAYERS} are the most.")
    return Manifest(descriptor(document["config"], what), tuple(descriptor(item, what) for item in layers))


def descriptor(item: Any, what: str) -> Descriptor:
    """A descriptor, its digest and size checked for form.

    Raises:
        ImageError: it is malformed, or names something that only other places have.
    """
    digest = item.get("digest") if isinstance(item, dict) else None
    size = item.get("size") if isinstance(item, dict) else None
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or not isinstance(size, int) or size < 0:
        raise ImageError(f"{what} names a part without a sha256 digest and a size.")
    if item.get("urls"):
        raise ImageError(f"{what} has a layer that its registry may not hand out (a foreign layer).")
    return Descriptor(digest, size)


def read_config(data: bytes, what: str) -> ImageConfig:
    """An image's configuration.

    Raises:
        ImageError: it is malformed, or made for another machine.
    """
    document = read_document(data, what)
    system, machine = document.get("os") or "linux", document.get("architecture") or architecture()
    if (system, machine) != ("linux", architecture()):
        raise ImageError(
            f"{what} is made for {system}/{machine}; this machine is linux/{architecture()}.",
            remedy="Choose an image that is built for this machine.",
        )
    rootfs = document.get("rootfs")
    diff_ids = _list(rootfs if isinstance(rootfs, dict) else {}, "diff_ids", what)
    if not all(isinstance(item, str) and DIGEST.fullmatch(item) for item in diff_ids):
        raise ImageError(f"{what} names layers by something else than sha256 digests.")
    if len(diff_ids) > MAX_LAYERS:
        raise ImageError(f"{what} has {len(diff_ids)} layers; {MAX_LAYERS} are the most.")
    found = document.get("config")
    section: Mapping[str, Any] = found if isinstance(found, dict) else {}
    pairs = (word.partition("=") for word in _words(section, "Env", what))
    volumes = section.get("Volumes")
    if isinstance(volumes, dict):
        if len(volumes) > MAX_VOLUMES:
            raise ImageError(f"{what} has {len(volumes)} volumes; {MAX_VOLUMES} are the most.")
        if not all(_is_word(path) and len(path) < _MAX_PATH for path in volumes):
            raise ImageError(f"{what}: Volumes is not a set of paths.")
    return ImageConfig(
        diff_ids=tuple(diff_ids),
        env={name: value for name, _, value in pairs if name},
        entrypoint=_words(section, "Entrypoint", what),
        command=_words(section, "Cmd", what),
        working_dir=_word(section, "WorkingDir", what) or "/",
        user=_word(section, "User", what),
        volumes=tuple(sorted(volumes)) if isinstance(volumes, dict) else (),
    )


def _words(section: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    words = _list(section, key, what)
    if not all(_is_word(word) for word in words):
        raise ImageError(f"{what}: {key} is not a list of words.")
    return tuple(words)


def _word(section: Mapping[str, Any], key: str, what: str) -> str:
    value = section.get(key) or ""
    if not _is_word(value):
        raise ImageError(f"{what}: {key} is not a word.")
    return value


def _is_word(value: Any) -> bool:
    """Whether a program can be given it: NUL ends a word, and what follows it would be another one."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character (\ud800), which JSON can write
        return False
    return True


def _list(document: Mapping[str, Any], key: str, what: str) -> list[Any]:
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ImageError(f"{what}: {key} is not a list.")
    return value
