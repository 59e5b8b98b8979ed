"""Images as they are stored: what goes in, and what is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from praxis_mcp.images.references import Reference


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
