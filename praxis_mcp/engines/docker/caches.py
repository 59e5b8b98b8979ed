"""Cache directories: volumes that outlive calls, writable by any user that a tool runs as.

A daemon makes a volume that belongs to root, or to the owner of what the image has in its place; a tool of another
user, or root without capabilities, could not write to it. So each is made here, in a container that never starts:
what an archive brings into a container may have any mode (Docker Engine API, PutContainerArchive), and no program of
the image is needed for it.
"""

from __future__ import annotations

import io
import tarfile
import time
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import anyio

from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.ownership import CACHE, TOOL, OwnContainers, waiting_labels
from praxis_mcp.plans.model import Blueprint

MAKE_TIMEOUT = 60.0
"""Seconds for making one."""
MAX_CACHE_VOLUMES = 256
"""Volumes kept; of more, those go that were made first and that no container uses. The daemon does not say when a
volume was used last."""
YOUNG = 24 * 3600.0
"""Seconds for which a new one is not removed: a call may be about to use it."""


class DockerCaches:
    """The cache volumes of one server's tools."""

    def __init__(self, own: OwnContainers) -> None:
        self._own = own
        self._making = anyio.Lock()

    async def ensure(self, daemon: DockerDaemon, blueprint: Blueprint, image: str) -> None:
        """Make those that the blueprint names and the daemon lacks.

        Raises:
            ImageMissing: the daemon lacks the image, whose files a volume begins with.
            Refusal, ExecutionError: as the daemon's own.
        """
        for directory in blueprint.cache_dirs:
            async with self._making:
                if not await daemon.has_volume(cache_volume(blueprint, directory)):
                    await _make_room(daemon)
                    await self._make(daemon, blueprint, directory, image)

    async def _make(self, daemon: DockerDaemon, blueprint: Blueprint, directory: str, image: str) -> None:
        config = {
            "Image": image,
            "Entrypoint": ["never-started"],
            "Labels": waiting_labels(self._own.server, blueprint, time.time() + MAKE_TIMEOUT),
            "HostConfig": {"NetworkMode": "none", "Mounts": [cache_mount(blueprint, directory, copy=True)]},
        }
        container, done = self._own.begin(), False
        try:
            await container.create(daemon, config)
            place = PurePosixPath(directory)
            await daemon.put(container.id, str(place.parent), _open_directory(place.name))
            done = True
        finally:
            await container.remove(daemon)
            if container.id and not done:  # or the next call would take it for finished
                with anyio.CancelScope(shield=True):
                    await daemon.remove_volume(cache_volume(blueprint, directory))


def cache_mount(blueprint: Blueprint, directory: str, *, copy: bool = False) -> dict[str, Any]:
    """A cache directory's volume.

    Args:
        blueprint: whose it is.
        directory: where it is in the container.
        copy: whether it begins with what the image has there; that brings the image's owner and mode along, so only
            for the container that it is made in.
    """
    return {
        "Type": "volume",
        "Source": cache_volume(blueprint, directory),
        "Target": directory,
        "VolumeOptions": {"Labels": {CACHE: directory, TOOL: blueprint.tool}, "NoCopy": not copy},
    }


def cache_volume(blueprint: Blueprint, directory: str) -> str:
    """Name of the volume behind a cache directory."""
    return f"praxis-mcp-cache-{blueprint.cache_key(directory)[:32]}"


async def _make_room(daemon: DockerDaemon) -> None:
    known = await daemon.volumes(CACHE)
    for name, made in known[: max(0, len(known) - MAX_CACHE_VOLUMES + 1)]:
        if _age(made) > YOUNG:
            await daemon.remove_volume(name)


def _age(made: str) -> float:
    try:
        return time.time() - datetime.fromisoformat(made).timestamp()
    except ValueError:  # no date, or a form that this Python does not know
        return 0.0


def _open_directory(name: str) -> bytes:
    """An archive with a directory that anyone may write to; the volume around it is the daemon's, and one user's."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o777, int(time.time())
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(entry)
    return content.getvalue()
