"""Images: their names, such as ``python:3.11-slim`` and ``ghcr.io/owner/tool@sha256:…``, what goes into the store, and
what is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from praxis_mcp.errors import ImageError

DEFAULT_REGISTRY = "docker.io"
IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a command is looked for in an image that does not say it, as on Docker."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
"""The only algorithm that is taken: the OCI image specification registers sha512 too, and nobody uses it."""

# Distribution specification, "Pulling manifests": <name> and <tag>.
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_MAX_REFERENCE = 512


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image that is to be stored: opened when its turn comes.

    Attributes:
        open: gives its bytes, compressed or not.
        digest: their digest; None where nothing says.
    """

    open: Callable[[], BinaryIO]
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class ImageContent:
    """An image that is to be stored: its configuration as it is, its layers, its manifest's digest if it has one."""

    config: bytes
    layers: tuple[Layer, ...]
    manifest: str | None = None


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An unpacked image.

    Attributes:
        id: digest of its configuration.
        directory: where it is.
        env, entrypoint, command, working_dir, user, volumes: see `ImageConfig`.
        size: bytes of its files.
        created: Unix time at which it was unpacked.
    """

    id: str
    directory: Path
    env: dict[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    working_dir: str
    user: str
    volumes: tuple[str, ...]
    size: int
    created: float

    @classmethod
    def of(cls, record: Mapping[str, Any], ident: str, directory: Path) -> Self:
        """The image that the record in its directory describes."""
        return cls(
            id=ident,
            directory=directory,
            env=dict(record["env"]),
            entrypoint=tuple(record["entrypoint"]),
            command=tuple(record["command"]),
            working_dir=record["working_dir"],
            user=record["user"],
            volumes=tuple(record["volumes"]),
            size=record["size"],
            created=record["created"],
        )

    @property
    def root(self) -> Path:
        """Its root file system."""
        return self.directory / "rootfs"

    @property
    def layer(self) -> Path:
        """An empty directory to mount a writable layer on."""
        return self.directory / "layer"


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An image by one of its names. `manifest`: digest in its registry, where it came from one."""

    reference: str
    image: StoredImage
    manifest: str | None

    @property
    def pinned(self) -> str:
        """The name by digest: ``python@sha256:…``; the image's id where no manifest is known."""
        if self.manifest is None:
            return self.image.id
        return str(Reference.parse(self.reference).at(self.manifest))


@dataclass(frozen=True, slots=True)
class Reference:
    """One image's name, made whole.

    Attributes:
        registry: host, and port where there is one.
        repository: path there, such as ``library/python``.
        tag: None where only a digest was given.
        digest: ``sha256:…`` of the manifest, or None.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as Docker does: the first part is a registry where it looks like a host; without tag and
        digest the tag is ``latest``.

        Raises:
            ImageError: it is not valid.
        """
        rest, at, digest = text.partition("@")
        tag: str | None = None
        head, colon, last = rest.rpartition(":")
        if colon and "/" not in last:
            rest, tag = head, last
        first, slash, others = rest.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry, repository = first, others
        else:
            registry, repository = DEFAULT_REGISTRY, rest if slash else f"library/{rest}"
        if not at and tag is None:
            tag = "latest"
        sound = (
            len(text) <= _MAX_REFERENCE
            and _HOST.fullmatch(registry)
            and _REPOSITORY.fullmatch(repository)
            and (tag is None or _TAG.fullmatch(tag))
            and (not at or DIGEST.fullmatch(digest))
        )
        if not sound:
            raise ImageError(
                f'"{text[:200]}" is not an image reference.',
                remedy="Write it as for docker pull: python:3.11-slim, registry.example.org/tool:1, or …@sha256:….",
            )
        return cls(registry, repository, tag, digest or None)

    @property
    def name(self) -> str:
        """Registry and repository, short as people write them (``python``, ``ghcr.io/owner/tool``)."""
        if self.registry == DEFAULT_REGISTRY:
            return self.repository.removeprefix("library/")
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What to ask a registry for: the digest where there is one, else the tag."""
        return self.digest or str(self.tag)

    def at(self, digest: str) -> Reference:
        """The same repository by a manifest's digest."""
        return Reference(self.registry, self.repository, None, digest)

    def __str__(self) -> str:
        """The short spelling; equal references have equal ones. A digest says more than a tag next to it."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"
