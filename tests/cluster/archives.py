"""The images of a test's cluster, as archives that containerd takes: made of the stand-ins of tests/kit/images.py."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kit import images
from tests.kit.cache import cache_dir, exclusive

PAUSE = "praxis-mcp.test/pause:1"
"""What holds the namespaces of a pod."""


def full_name(reference: str) -> str:
    """As kubelets and containerd write it: `busybox:1.36` is `docker.io/library/busybox:1.36`."""
    first, slash, _ = reference.partition("/")
    if not slash:
        return f"docker.io/library/{reference}"
    return reference if "." in first or ":" in first or first == "localhost" else f"docker.io/{reference}"


def pause() -> Path:
    """The archive of the image `PAUSE`."""
    return _of_stand_in(images.IMAGES["busybox:1.36"], PAUSE, ("busybox", "sleep", "2147483647"))


def stand_in(reference: str) -> Path:
    """The archive of an image that tests use, made where it is missing.

    Raises:
        ImageUnavailable: it cannot be made.
    """
    recipe = images.IMAGES[reference]
    return _of_stand_in(recipe, full_name(reference), recipe.command)


def _of_stand_in(recipe: images.Recipe, reference: str, command: Sequence[str]) -> Path:
    made = hashlib.sha256(f"{reference} {' '.join(command)}".encode()).hexdigest()[:12]
    with exclusive("images"):
        layer = images.layer_file(recipe)
        kept = cache_dir() / f"{recipe.label}.{platform.machine()}.{made}.image.tar"
        if not kept.exists() or kept.stat().st_mtime < layer.stat().st_mtime:
            half = kept.with_suffix(".half")
            try:
                write(half, reference, layer, {"Env": [f"PATH={recipe.path}"], "Cmd": list(command)})
                half.replace(kept)
            finally:
                half.unlink(missing_ok=True)
    return kept


def write(archive: Path, reference: str, layer: Path, config: Mapping[str, object]) -> None:
    """Write an image of one layer as `docker save` does.

    Args:
        archive: the file to write.
        layer: a root file system, as a tar archive.
        config: `Env`, `Cmd`, `User` and the like.
    """
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    image = {
        "architecture": machine,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "tests/cluster/archives.py"}],
    }
    configuration = json.dumps(image).encode()
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(archive, "w") as tar:
        for file, data in ((name, configuration), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        tar.add(layer, "layer.tar")
