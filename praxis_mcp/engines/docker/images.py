"""Images on the daemon: pulled once for all who wait, and named with their digest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import anyio
import anyio.from_thread

from praxis_mcp.engines.base import PinnedImage, StatusListener
from praxis_mcp.engines.docker.api import DockerDaemon, ImageMissing
from praxis_mcp.engines.pulls import PULL_TIMEOUT, SharedPulls
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout, ImageError
from praxis_mcp.images.model import Reference
from praxis_mcp.images.streams import PROGRESS_INTERVAL
from praxis_mcp.settings.model import Settings

DAEMON_TIMEOUT = 5.0
"""Seconds to find out, for an engine that can do without, whether there is a Docker daemon."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a call must know of its image.

    Attributes:
        id: its id.
        digest: the image by its digest: ``python@sha256:…``, or ``sha256:…`` (its id) where it came from no registry.
        entrypoint: the words of its entrypoint.
        user: whom its commands run as; empty is root.
        has_volumes: whether it declares volumes.
        size: bytes of its files.
        digests: the image by its digest in each of its repositories.
    """

    id: str
    digest: str
    entrypoint: tuple[str, ...]
    user: str = ""
    has_volumes: bool = False
    size: int = 0
    digests: tuple[str, ...] = ()

    @classmethod
    def of(cls, image: Mapping[str, Any]) -> ImageFacts:
        """From what the daemon says of an image (Docker Engine API, ImageInspect)."""
        digests = image.get("RepoDigests") or []
        config = image.get("Config") or {}
        return cls(
            str(image["Id"]),
            str(digests[0] if digests else image["Id"]),
            tuple(map(str, config.get("Entrypoint") or ())),
            user=str(config.get("User") or ""),
            has_volumes=bool(config.get("Volumes")),
            size=int(image.get("Size") or 0),
            digests=tuple(map(str, digests)),
        )

    def digest_of(self, reference: str) -> str:
        """The image of that name by the digest of that very repository; else by its id."""
        name = Reference.parse(reference).name
        return next((item for item in self.digests if Reference.parse(item).name == name), self.id)

    def pinned(self, reference: str, *, shares_files: bool) -> PinnedImage:
        """It, as the contract names it; see `PinnedImage`."""
        return PinnedImage(
            reference, self.id, self.digest, self.user, self.has_volumes, self.size, shares_files=shares_files
        )


class DockerImages:
    """The images of one daemon."""

    def __init__(self) -> None:
        self._pulls = SharedPulls()

    async def pull(self, daemon: DockerDaemon, reference: str, on_status: StatusListener | None = None) -> None:
        """Pull an image. Those who ask for it in the meantime wait for the same pull, get its progress, and share
        its failure; when the one that pulls is cancelled, the next takes over.

        Raises:
            ImageError: it cannot be provided, or not within `PULL_TIMEOUT`.
            EngineUnavailable: the daemon is gone.
        """
        if on_status is not None:
            on_status(f"pulling {reference}")
        await self._pulls.run(reference, lambda tell: self._pull(daemon, reference, tell), on_status)

    async def _pull(self, daemon: DockerDaemon, reference: str, tell: StatusListener) -> None:
        progress = _Progress(reference)
        abandoned = False

        def on_progress(event: Mapping[str, Any]) -> bool:
            text = progress.after(event)
            if text and not abandoned:
                anyio.from_thread.run_sync(tell, text)
            return not abandoned

        try:
            with anyio.fail_after(PULL_TIMEOUT):
                await daemon.pull(reference, on_progress)
        except TimeoutError as exc:
            raise ImageError(
                f"The image {reference} was not pulled within {PULL_TIMEOUT:g} s.",
                remedy=f"Pull it by hand: docker pull {reference}.",
            ) from exc
        finally:
            abandoned = True

    async def facts(self, daemon: DockerDaemon, reference: str) -> ImageFacts | None:
        """What the daemon knows of an image; None where it is gone."""
        try:
            return ImageFacts.of(await daemon.image(reference))
        except ImageMissing:
            return None

    async def name_by_digest(self, daemon: DockerDaemon, reference: str) -> str | None:
        """See `ExecutionEngine.name_by_digest`."""
        facts = await self.facts(daemon, reference)
        return facts.digest_of(reference) if facts is not None else None


class _Progress:
    """The daemon's events about layers, as one line now and then."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._layers: dict[str, tuple[int, int]] = {}
        self._reported_at = 0.0

    def after(self, event: Mapping[str, Any]) -> str | None:
        """A line to report after this event, or None."""
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            self._layers[str(event.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
        now = time.monotonic()
        if now - self._reported_at < PROGRESS_INTERVAL:
            return None
        self._reported_at = now
        total = sum(size for _, size in self._layers.values())
        if not total:
            return f"pulling {self._reference}"
        return f"pulling {self._reference}: {100 * sum(got for got, _ in self._layers.values()) // total}%"


async def save_image(settings: Settings, reference: str, into: BinaryIO, tell: StatusListener) -> bool:
    """An image of the daemon that the settings name, for another engine; see `LocalImages`."""
    try:
        with anyio.fail_after(DAEMON_TIMEOUT):
            daemon = await DockerDaemon.connect(settings.engines.docker.host)
    except (ExecutionError, TimeoutError):  # no daemon: the caller can do without
        return False
    try:
        await daemon.image(reference)
        tell(f"taking {reference} from Docker")
        await daemon.save(reference, into)
    except (ImageMissing, EngineUnavailable, ExecutionTimeout):  # it does not have it, or has gone away meanwhile
        return False
    finally:
        with anyio.CancelScope(shield=True):
            await daemon.close()
    return True
