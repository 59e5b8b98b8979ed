"""Layers and images made by tests, honest and otherwise."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from praxis_mcp.images.manifests import architecture, digest_of
from praxis_mcp.images.model import ImageContent, Layer

Entry = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"", mode: int = 0o644, mtime: int = 1_000_000_000) -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uid, info.gid = len(content), mode, mtime, 1234, 2345
    return info, content


def directory(name: str, mode: int = 0o755) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = tarfile.DIRTYPE, mode, 1_000_000_000
    return info, b""


def symlink(name: str, target: str) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info, b""


def hard_link(name: str, target: str) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, target
    return info, b""


def device(name: str) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor, info.mode = tarfile.BLKTYPE, 8, 0, 0o666
    return info, b""


def fifo(name: str) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.FIFOTYPE, 0o666
    return info, b""


def layer(*entries: Entry) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def header(kind: bytes, body: bytes) -> bytes:
    """A header that says something of the next one: pax records, a long name."""
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def pax_record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n"
    size = len(rest) + len(str(len(rest) + 4))
    return f"{size}{rest}".encode()


@dataclass(frozen=True)
class MadeImage:
    """An image: layers as they travel (compressed), its configuration, and its manifest."""

    layers: tuple[bytes, ...]
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def blobs(self) -> dict[str, bytes]:
        return {digest_of(data): data for data in (*self.layers, self.config, self.manifest)}

    def content(self) -> ImageContent:
        parts = tuple(Layer(lambda data=data: io.BytesIO(data), digest_of(data)) for data in self.layers)
        return ImageContent(self.config, parts, self.digest)


def image(*plain: bytes, compress: bool = True, machine: str | None = None, **config: Any) -> MadeImage:
    """An image of these layers; `config` is its ``config`` section."""
    layers = tuple(gzip.compress(data, mtime=0) if compress else data for data in plain)
    document = {
        "os": "linux",
        "architecture": machine or architecture(),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in plain]},
    }
    text = json.dumps(document).encode()
    kind = "tar+gzip" if compress else "tar"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(text, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(data, f"application/vnd.oci.image.layer.v1.{kind}") for data in layers],
    }
    return MadeImage(layers, text, json.dumps(manifest).encode())


def descriptor(data: bytes, media_type: str, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **fields}


def write_layout(place: Path, images: Iterable[tuple[MadeImage, str]]) -> Path:
    """An OCI layout with these images, each under the name that follows it."""
    entries: list[dict[str, Any]] = []
    (place / "blobs/sha256").mkdir(parents=True)
    for made, name in images:
        for digest, data in made.blobs.items():
            (place / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(data)
        notes = {"org.opencontainers.image.ref.name": name}
        entries.append(descriptor(made.manifest, "application/vnd.oci.image.manifest.v1+json", annotations=notes))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return place


def packed(place: Path, archive: Path, mode: str = "w") -> Path:
    """A directory as a tar archive."""
    with tarfile.open(archive, mode) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for path in sorted(place.rglob("*")):
            tar.add(path, str(path.relative_to(place)), recursive=False)
    return archive


def docker_archive(archive: Path, made: MadeImage, *names: str) -> Path:
    """What ``docker save`` wrote before version 25; a second layer that is the first again is a link to it."""
    with tarfile.open(archive, "w") as tar:

        def add(name: str, data: bytes) -> None:
            tar.addfile(file(name, data)[0], io.BytesIO(data))

        config = digest_of(made.config).removeprefix("sha256:") + ".json"
        add(config, made.config)
        paths: list[str] = []
        for number, data in enumerate(made.layers):
            path = f"{number:064x}/layer.tar"
            first = made.layers.index(data)
            if first < number:
                tar.addfile(symlink(path, f"../{first:064x}/layer.tar")[0])
            else:
                add(path, data)
            paths.append(path)
        add("manifest.json", json.dumps([{"Config": config, "RepoTags": list(names), "Layers": paths}]).encode())
    return archive
