"""Images for the sandbox: from its own store, else from a Docker daemon that has them, else from their registry."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import anyio
import anyio.from_thread
import anyio.to_thread

from praxis_mcp.engines.base import StatusListener
from praxis_mcp.engines.pulls import PULL_TIMEOUT, LocalImages, SharedPulls, hint_at_local_images, save_local_image
from praxis_mcp.errors import ImageError
from praxis_mcp.images.archives import import_file
from praxis_mcp.images.layers import Bounds
from praxis_mcp.images.logins import Login
from praxis_mcp.images.model import ImageContent, NamedImage, Reference, StoredImage
from praxis_mcp.images.registry import RegistryClient
from praxis_mcp.images.store import LOCK_TIMEOUT, ImageStore, default_directory
from praxis_mcp.plans.secrets import resolve_secret
from praxis_mcp.settings.model import Settings

if TYPE_CHECKING:
    from praxis_mcp.images.from_host import HostImage

_STOP_CHECK_INTERVAL = 0.05

T = TypeVar("T")


class SandboxImages:
    """The images that a sandbox can run.

    Args:
        settings: where the store is, and whether images may be pulled.
        local_images: gives images that this machine has already.
    """

    def __init__(self, settings: Settings, local_images: LocalImages = save_local_image) -> None:
        chosen = settings.engines.sandbox
        self.store = ImageStore(chosen.store or default_directory(), Bounds(size=chosen.max_image_size))
        self._settings = settings
        self._local_images = local_images
        self._pulls = SharedPulls()

    async def ensure(self, reference: str, on_status: StatusListener | None = None) -> NamedImage:
        """The image, brought into the store where it is missing there.

        Args:
            reference: the image.
            on_status: is called with what is being done about it.

        Raises:
            ImageError: it cannot be provided; says how to fix it.
        """
        found = self.store.find(reference)  # a look at two small files
        if found is None:

            async def bring(tell: StatusListener) -> None:
                try:
                    with anyio.fail_after(PULL_TIMEOUT):
                        if self.store.find(reference) is None:
                            await self._bring(reference, tell)
                except TimeoutError as exc:
                    raise ImageError(
                        f"The image {reference} could not be fetched within {PULL_TIMEOUT:g} s.",
                        remedy=f"Pull it beforehand: praxis-mcp image pull {reference}.",
                    ) from exc

            await self._pulls.run(reference, bring, on_status)
            found = self.store.find(reference)
        if found is None:
            raise ImageError(f"The image {reference} was removed from the store just now.", remedy="Call again.")
        return found

    @asynccontextmanager
    async def use(self, image: StoredImage) -> AsyncIterator[None]:
        """Keep an image from being removed; waits for a process that is about it.

        Raises:
            ImageError: it was removed just now, or that process hangs.
        """
        deadline = anyio.current_time() + LOCK_TIMEOUT
        while True:
            with self.store.use(image) as held:  # as a rule at once: not worth a thread
                if held:
                    yield
                    return
            if anyio.current_time() >= deadline:
                raise self.store.busy(image.id)
            await anyio.sleep(_STOP_CHECK_INTERVAL)

    async def pull(self, reference: str, on_status: StatusListener) -> NamedImage:
        """The image as its registry has it now, whether an older one is there or not.

        Raises:
            ImageError: it cannot be provided; says how to fix it.
        """
        await self._from_registry(Reference.parse(reference), on_status)
        return await self.ensure(reference)

    async def import_file(self, file: Path, name: str | None, on_status: StatusListener) -> tuple[NamedImage, ...]:
        """Every image of an archive or OCI layout; see `archives.import_file`.

        Raises:
            ImageError: the file is not an archive of images, or is damaged.
        """
        found = await _in_thread(
            lambda is_stopped, tell: import_file(
                self.store, file, name, is_stopped=is_stopped, on_progress=lambda text: tell(f"{file.name}: {text}")
            ),
            on_status,
        )
        named = (self.store.find(reference) for reference, _ in found)
        return tuple(item for item in named if item is not None)

    async def copy(self, reference: str, name: str) -> None:
        """An image that this machine has already, under a name of its own; of no registry, and whatever the settings
        say of pulls.

        Args:
            reference: what it is called where it is.
            name: its name in the store.

        Raises:
            ImageError: it is not there any more, or cannot be stored.
        """
        if not await self._from_this_machine(reference, name, lambda _: None):
            raise ImageError(f"The image {reference} is not on this machine.", remedy="Call again.")

    async def from_host(
        self, name: str, programs: Sequence[str], extra: Sequence[Path], bounds: Bounds, on_status: StatusListener
    ) -> HostImage:
        """An image of this machine's programs; see `store_from_host`. Nothing is stored when this is cancelled.

        Raises:
            ImageError: a program cannot be taken.
        """
        # Nothing else needs to know how programs are loaded.
        from praxis_mcp.images.from_host import store_from_host

        return await _in_thread(
            lambda is_stopped, tell: store_from_host(
                self.store, name, programs, extra, bounds, is_stopped=is_stopped, on_progress=tell
            ),
            on_status,
        )

    async def _bring(self, reference: str, tell: StatusListener) -> None:
        if await self._from_this_machine(reference, reference, tell):
            return
        if self._settings.pull == "never":
            raise ImageError(
                f"The image {reference} is not in the sandbox's store, and the settings say pull: never.",
                remedy=f"Import it (docker save {reference} -o FILE; praxis-mcp image import FILE), pull it "
                f"(praxis-mcp image pull {reference}), or set pull: missing.",
            )
        try:
            await self._from_registry(Reference.parse(reference), tell)
        except ImageError as exc:
            if not (hint := hint_at_local_images()):
                raise
            raise ImageError(exc.message, remedy=" ".join(filter(None, (exc.remedy, hint)))) from exc

    async def _from_this_machine(self, reference: str, name: str, tell: StatusListener) -> bool:
        """Whether this machine had it; it is stored under `name`."""
        try:
            with tempfile.TemporaryFile(dir=await anyio.to_thread.run_sync(self.store.temporary)) as archive:
                if not await self._local_images(self._settings, reference, cast(BinaryIO, archive), tell):
                    return False
                await _in_thread(
                    lambda is_stopped, on_progress: import_file(
                        self.store,
                        cast(BinaryIO, archive),
                        name,
                        is_stopped=is_stopped,
                        on_progress=lambda text: on_progress(f"{reference}: {text}"),
                    ),
                    tell,
                )
        except OSError as exc:
            raise self.store.unwritable(exc) from exc
        return True

    async def _from_registry(self, reference: Reference, tell: StatusListener) -> None:
        tell(f"pulling {reference}")
        login = await anyio.to_thread.run_sync(self._login, reference.registry)
        async with RegistryClient(reference.registry, login) as registry:
            image = await registry.look_up(reference)
            names = {str(reference), str(reference.at(image.digest))}
            async with registry.fetched_layers(
                reference, image, self.store, lambda text: tell(f"pulling {reference}: {text}")
            ) as content:
                await _in_thread(
                    lambda is_stopped, on_progress: self.store.install(
                        content,
                        names,
                        is_stopped=is_stopped,
                        on_progress=lambda text: on_progress(f"{reference}: {text}"),
                    ),
                    tell,
                )
        await anyio.to_thread.run_sync(self._drop_downloads, content)

    def _login(self, registry: str) -> Login | None:
        """The settings' login; None leaves it to what ``docker login`` has stored."""
        login = self._settings.engines.registries.get(registry)
        if login is None:
            return None
        return Login(login.username, resolve_secret(login.secret, self._settings, f"The registry {registry}"))

    def _drop_downloads(self, content: ImageContent) -> None:
        for layer in content.layers:
            if layer.digest is not None:
                with self.store.lock_download(layer.digest) as held:
                    if held:
                        self.store.download(layer.digest).unlink(missing_ok=True)


async def _in_thread(work: Callable[[Callable[[], bool], StatusListener], T], tell: StatusListener) -> T:
    """Run what may take minutes in a thread; told to stop, and not waited for, when this is cancelled."""
    stopped = threading.Event()

    def on_progress(text: str) -> None:
        if not stopped.is_set():
            anyio.from_thread.run_sync(tell, text)

    try:
        return await anyio.to_thread.run_sync(work, stopped.is_set, on_progress, abandon_on_cancel=True)
    finally:
        stopped.set()
