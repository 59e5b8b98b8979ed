"""Images that the sandbox takes from another engine ahead of need, to stand in for it: each by the digest that the
other knows it by, under names of their own, so that none becomes what a contract of the sandbox's own means by a name.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time

import anyio
import anyio.to_thread

from praxis_mcp.engines.base import PinnedImage
from praxis_mcp.engines.host.sandbox_images import SandboxImages
from praxis_mcp.engines.pulls import PULL_TIMEOUT
from praxis_mcp.errors import ExecutionError, ImageError
from praxis_mcp.images.model import DIGEST, NamedImage
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import BackgroundTasks

TAKEN_PREFIX = "localhost/docker/"
"""How the names of taken images begin, in `praxis-mcp image ls` too."""
MOST_TAKEN = 8 * 1024**3
"""Bytes of all that are taken together; what is beyond stays where it is."""
ROOM = 4
"""How many times its own size must be free on the disk before one is taken: the archive and the files are two."""
TAKE_AFTER = 0.5
"""Seconds between the call that needed an image and its taking: that call, or the end of its process, goes first."""
_TRY_AGAIN_AFTER = 600.0
"""Seconds until one that could not be taken, or was removed, is tried again."""
_MOST_REMEMBERED = 256
_SLUG = re.compile(r"[^a-z0-9]+")


class TakenImages:
    """The taken images of one store.

    Args:
        images: the sandbox's images.
        background: runs what takes them.
    """

    def __init__(self, images: SandboxImages, background: BackgroundTasks) -> None:
        self._images = images
        self._background = background
        self._tried: dict[str, float] = {}
        self._one_at_a_time = anyio.Lock()
        self._taking: set[anyio.CancelScope] = set()

    def find(self, image: PinnedImage) -> NamedImage | None:
        """That very image, where it is there. Looks at a few small files."""
        name = _name(image)
        if name is None:
            return None
        # The store's own ids are digests of configurations, as those of daemons without containerd's store.
        return self._images.store.find(image.id) or self._images.store.find(name)

    def start_taking(self, image: PinnedImage) -> None:
        """Take it in the background: not with every call that asks for what cannot be taken now."""
        now = time.monotonic()
        if _name(image) is None or now < self._tried.get(image.id, -_TRY_AGAIN_AFTER) + _TRY_AGAIN_AFTER:
            return
        if len(self._tried) >= _MOST_REMEMBERED:
            self._tried.clear()
        self._tried[image.id] = now
        scope = anyio.CancelScope()
        self._taking.add(scope)
        self._background.start(lambda: self._take(image, scope), f"taking the image {image.reference}")

    def stop(self) -> None:
        """Take no more; what is being taken is left."""
        for scope in self._taking:
            scope.cancel()

    async def _take(self, image: PinnedImage, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await anyio.sleep(TAKE_AFTER)
                await self._take_now(image)
        finally:
            self._taking.discard(scope)
        if scope.cancelled_caught:
            self._tried.pop(image.id, None)

    async def _take_now(self, image: PinnedImage) -> None:
        async with self._one_at_a_time:
            if self.find(image) is not None:
                return
            try:
                if why := await anyio.to_thread.run_sync(self._why_not, image):
                    logger.info("{} is not taken for the sandbox: {}", image.reference, why)
                    return
                with anyio.fail_after(PULL_TIMEOUT):
                    await self._images.copy(image.id, _name(image) or "")
                await anyio.to_thread.run_sync(self._remove_older, image)
                logger.info("{} is there for the sandbox too, which stands in for Docker", image.reference)
            except (ExecutionError, OSError, TimeoutError) as exc:
                logger.info("{} cannot be taken for the sandbox: {}", image.reference, exc)

    def _why_not(self, image: PinnedImage) -> str:
        """Why it stays where it is; empty where it may be taken."""
        older = _stem(image.reference)
        held = {item.image.id: item.image.size for item in self._taken() if not item.reference.startswith(older)}
        if sum(held.values()) + image.size > MOST_TAKEN:
            return f"images that were taken have {MOST_TAKEN // 1024**3} GiB already (praxis-mcp image ls, image rm)"
        if shutil.disk_usage(self._images.store.temporary()).free < ROOM * image.size:
            return f"the disk has less than {ROOM} times its size left"
        return ""

    def _remove_older(self, image: PinnedImage) -> None:
        """Remove what that reference meant before."""
        for item in self._taken():
            if item.reference.startswith(_stem(image.reference)) and item.reference != _name(image):
                try:
                    self._images.store.remove(item.reference)
                except ImageError as exc:  # in use: the next one that is taken removes it
                    logger.debug("{} stays for now: {}", item.reference, exc)

    def _taken(self) -> list[NamedImage]:
        return [item for item in self._images.store.names() if item.reference.startswith(TAKEN_PREFIX)]


def _stem(reference: str) -> str:
    """How the names of all images begin that a reference has meant: readable, and its own by a digest."""
    slug = _SLUG.sub("-", reference.lower()).strip("-")[:60].strip("-") or "image"
    return f"{TAKEN_PREFIX}{slug}-{hashlib.sha256(reference.encode()).hexdigest()[:12]}@"


def _name(image: PinnedImage) -> str | None:
    """Its name in the store; None for an engine whose digests are of another kind."""
    return f"{_stem(image.reference)}{image.id}" if DIGEST.fullmatch(image.id) else None
