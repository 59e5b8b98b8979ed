"""Images out of registries (OCI distribution specification 1.1, "Pull"): verified, bounded, resumed where cut short.

No client for Python does this with asyncio: `oras` and `python-dxf` block in requests, and resume nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import anyio
import anyio.to_thread
import httpx2

from praxis_mcp.errors import ImageError
from praxis_mcp.images.logins import Authorizer, Login, stored_login
from praxis_mcp.images.manifests import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT,
    Descriptor,
    Manifest,
    choose_manifest,
    digest_of,
    is_index,
    read_document,
    read_manifest,
)
from praxis_mcp.images.model import DEFAULT_REGISTRY, DIGEST, ImageContent, Layer, Reference
from praxis_mcp.images.store import ImageStore
from praxis_mcp.images.streams import DOWNLOAD_PIECE, BlobFile, Progress, TryAgain, altered_error

T = TypeVar("T")

REQUEST_ATTEMPTS = 5
"""Tries for one request, or for the rest of one blob."""
FIRST_PAUSE = 1.0
"""Seconds before the second try; the pause doubles with each."""
LONGEST_PAUSE = 30.0
"""Seconds between two tries, at most."""
PARALLEL = 3
"""Blobs fetched at once, as Docker does."""

_TIMEOUT = httpx2.Timeout(10, read=60)
_WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})
_MAX_NESTED = 4
_MAX_REDIRECTS = 5
_PROGRESS_CHECK_INTERVAL = 0.1
_ACCEPT = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An image in a registry: the digest of its manifest for this machine, that manifest, and its configuration."""

    digest: str
    manifest: Manifest
    config: bytes


class RegistryClient:
    """One registry; an async context manager.

    Args:
        registry: host, and port where there is one, as in a `Reference`. One on loopback may speak plain HTTP.
        login: None looks for one that ``docker login`` has stored.
    """

    def __init__(self, registry: str, login: Login | None = None) -> None:
        self._registry = registry
        self._host = "registry-1.docker.io" if registry == DEFAULT_REGISTRY else registry
        self._login = login
        self._scheme = "https"
        self._client = httpx2.AsyncClient(
            timeout=_TIMEOUT, follow_redirects=False, headers={"User-Agent": "praxis-mcp"}
        )
        self._authorizer = Authorizer(self._client, registry, login)

    async def __aenter__(self) -> Self:
        if self._login is None:
            login = await anyio.to_thread.run_sync(stored_login, self._registry)
            self._authorizer = Authorizer(self._client, self._registry, login)
        if _is_loopback(self._host):
            try:
                async with self._client.stream("GET", f"https://{self._host}/v2/"):
                    pass
            except httpx2.TransportError:
                self._scheme = "http"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def look_up(self, reference: Reference) -> RemoteImage:
        """What the registry has under that name, for this machine.

        Raises:
            ImageError: there is nothing, it is not for us, or it cannot be reached; says how to fix it.
        """
        wanted, what = reference.wanted, str(reference)
        for _ in range(_MAX_NESTED):
            body = await self._small(f"{reference.repository}/manifests/{wanted}", reference, _ACCEPT)
            digest = digest_of(body)
            if DIGEST.fullmatch(wanted) and digest != wanted:
                raise altered_error(what, digest, wanted)
            document = read_document(body, f"The manifest of {what}")
            if not is_index(document):
                manifest = read_manifest(document, what)
                config = await self._small(f"{reference.repository}/blobs/{manifest.config.digest}", reference)
                if digest_of(config) != manifest.config.digest:
                    raise altered_error(what, digest_of(config), manifest.config.digest)
                return RemoteImage(digest, manifest, config)
            wanted = choose_manifest(document, what).digest
        raise ImageError(f"{what} nests lists of images more than {_MAX_NESTED} deep.")

    @asynccontextmanager
    async def fetched_layers(
        self, reference: Reference, image: RemoteImage, store: ImageStore, on_progress: Callable[[str], None]
    ) -> AsyncIterator[ImageContent]:
        """Bring an image's layers into the store's downloads; what is there already is not fetched again.

        They stay there until the block ends, even if others pull an image with the same ones meanwhile.

        Raises:
            ImageError: one cannot be provided, is too large, or is not what its digest says.
        """
        layers = {layer.digest: layer for layer in image.manifest.layers}
        total = sum(layer.size for layer in layers.values())
        if total > store.bounds.size:
            raise ImageError(
                f"{reference} is larger than {store.bounds.size} bytes.",
                remedy="Use a smaller image, or raise engines.sandbox.max_image_size in the settings.",
            )
        progress = Progress(total, on_progress)
        gate = anyio.CapacityLimiter(PARALLEL)
        failures: list[ImageError] = []

        async def fetch(layer: Descriptor) -> None:
            async with gate:
                try:
                    await self._held_blob(reference, layer, store, progress, holds)
                except ImageError as exc:
                    failures.append(exc)
                    tasks.cancel_scope.cancel()
                except OSError as exc:
                    failures.append(store.unwritable(exc))
                    tasks.cancel_scope.cancel()

        with ExitStack() as holds:
            async with anyio.create_task_group() as tasks:
                for layer in layers.values():
                    tasks.start_soon(fetch, layer)
            if failures:
                raise failures[0]
            parts = (Layer(_opener(store.download(layer.digest)), layer.digest) for layer in image.manifest.layers)
            yield ImageContent(image.config, tuple(parts), image.digest)

    async def _held_blob(
        self, reference: Reference, part: Descriptor, store: ImageStore, progress: Progress, holds: ExitStack
    ) -> None:
        """Fetch a blob, unless another process does or has it, and hold it. The caller bounds the wait."""
        while True:
            with store.lock_download(part.digest) as alone:
                if alone:
                    await self._blob(reference, part, store, progress)
            with ExitStack() as hold:
                # Anyone who removes it, and was quicker now, may have it: then it is fetched again.
                if hold.enter_context(store.hold_download(part.digest, part.size)):
                    holds.push(hold.pop_all())
                    progress.add(part.digest, part.size)
                    return
            await anyio.sleep(_PROGRESS_CHECK_INTERVAL)

    async def _blob(self, reference: Reference, part: Descriptor, store: ImageStore, progress: Progress) -> None:
        file = BlobFile(store.download(part.digest), part)

        async def fetch() -> None:
            try:
                size = await anyio.to_thread.run_sync(file.open)
                progress.add(part.digest, size)
                if size < part.size:
                    await self._rest(reference, part, file, size, progress)
                await anyio.to_thread.run_sync(file.check, str(reference))
            finally:
                # Left open, it would write what it still holds whenever it is collected, after that of the next pull.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(file.close)

        await _tried_again(fetch, reference)

    async def _rest(
        self, reference: Reference, part: Descriptor, file: BlobFile, start: int, progress: Progress
    ) -> None:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        async with self._stream(f"{reference.repository}/blobs/{part.digest}", reference, headers) as response:
            if start and response.status_code != 206:  # the registry knows no ranges: from the beginning
                await anyio.to_thread.run_sync(file.restart)
                progress.add(part.digest, 0)
            waiting = bytearray()
            try:
                async for data in response.aiter_bytes():
                    waiting += data
                    if len(waiting) >= DOWNLOAD_PIECE:
                        await self._write(file, part, waiting, progress)
            except httpx2.TransportError:
                await self._write(file, part, waiting, progress)  # the next try goes on from there
                raise
            await self._write(file, part, waiting, progress)

    @staticmethod
    async def _write(file: BlobFile, part: Descriptor, waiting: bytearray, progress: Progress) -> None:
        data = bytes(waiting)
        waiting.clear()
        progress.add(part.digest, await anyio.to_thread.run_sync(file.write, data))

    async def _small(self, path: str, reference: Reference, headers: Mapping[str, str] | None = None) -> bytes:
        """A document, within `MAX_DOCUMENT` bytes, tried again where that may help."""

        async def fetch() -> bytes:
            async with self._stream(path, reference, headers or {}) as response:
                body = bytearray()
                async for data in response.aiter_bytes():
                    body += data
                    if len(body) > MAX_DOCUMENT:
                        raise ImageError(f"The manifest of {reference} is larger than {MAX_DOCUMENT} bytes.")
                return bytes(body)

        # Nobody there, or no such host: not worth waiting for.
        return await _tried_again(fetch, reference, in_vain=httpx2.ConnectError)

    @asynccontextmanager
    async def _stream(
        self, path: str, reference: Reference, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx2.Response]:
        url = f"{self._scheme}://{self._host}/v2/{path}"
        for is_last in (False, True):
            sent = {**headers, **self._authorizer.headers(reference.repository)}
            request = self._client.build_request("GET", url, headers=sent)
            async with self._followed(request) as response:
                # The login is for the registry: no other host, which a redirect led to, may ask for it.
                if response.status_code == 401 and response.request is request and not is_last:
                    await self._authorizer.answer(response.headers.get("WWW-Authenticate", ""), reference.repository)
                    continue
                _check_status(response, reference)
                yield response
                return

    @asynccontextmanager
    async def _followed(self, request: httpx2.Request) -> AsyncIterator[httpx2.Response]:
        """The answer behind redirects: to other hosts, where blobs often lie, they leave Authorization behind.

        httpx by itself reads what each redirect carries to its end, and goes from HTTPS to HTTP.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._client.send(request, stream=True)
            try:
                following = response.next_request
                if following is None:
                    yield response
                    return
                if request.url.scheme == "https" != following.url.scheme:
                    raise _broken(self._registry, f"leads on to {following.url.host}, which is not encrypted")
                request = following
            except httpx2.DecodingError as exc:
                raise _broken(self._registry, f"sends what cannot be decompressed: {exc}") from exc
            finally:
                await response.aclose()
        raise _broken(self._registry, f"redirects more than {_MAX_REDIRECTS} times")


async def _tried_again(
    fetch: Callable[[], Awaitable[T]],
    reference: Reference,
    *,
    in_vain: type[httpx2.TransportError] | tuple[()] = (),
) -> T:
    """What `fetch` gives, tried `REQUEST_ATTEMPTS` times where it breaks off or is told to come again.

    Raises:
        ImageError: the last time as well, or once `in_vain`, after which no further try would help.
    """
    pause, left = FIRST_PAUSE, REQUEST_ATTEMPTS
    while True:
        left -= 1
        try:
            return await fetch()
        except httpx2.TransportError as exc:
            if not left or isinstance(exc, in_vain):
                raise unreachable(reference, exc) from exc
        except TryAgain as exc:
            if not left:
                raise exc.error from exc
            pause = max(pause, exc.pause)
        await anyio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _opener(path: Path) -> Callable[[], BinaryIO]:
    return lambda: path.open("rb")


def _is_loopback(host: str) -> bool:
    name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _check_status(response: httpx2.Response, reference: Reference) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status in (401, 403):
        raise ImageError(
            f"The registry {reference.registry} does not let {reference} be pulled ({status}).",
            remedy=f"Check the name, or log in: docker login {reference.registry}.",
        )
    if status == 404:
        raise ImageError(
            f"The registry {reference.registry} has no {reference}.",
            remedy="Check the name and tag, or import the image: praxis-mcp image import FILE.",
        )
    error = ImageError(
        f"The registry {reference.registry} answered {status} for {reference}.", remedy="Try again later."
    )
    if status in _WORTH_ANOTHER_TRY:
        after = response.headers.get("Retry-After", "")
        raise TryAgain(error, min(float(after), LONGEST_PAUSE) if after.isdecimal() else 0.0)
    raise error


def _broken(registry: str, what: str) -> ImageError:
    return ImageError(f"The registry {registry} {what}.", remedy="Its operator must fix that; or use another registry.")


def unreachable(reference: Reference, exc: Exception) -> ImageError:
    why = re.sub(r"^\[Errno -?\d+\] ", "", str(exc)) or type(exc).__name__
    if reference.registry == "localhost":
        return ImageError(
            f"The image {reference} is not in the store, and no registry answers at localhost: {why}.",
            remedy=f"Make it of programs of this machine (praxis-mcp image from-host {reference} PROGRAM…), or import "
            "it from a file (praxis-mcp image import FILE).",
        )
    return ImageError(
        f"{reference} cannot be pulled, because {reference.registry} cannot be reached: {why}.",
        remedy="Check the network; or save the image where there is one, and import the file here: "
        f"docker save {reference} -o FILE; praxis-mcp image import FILE. Where programs of this machine will do, make "
        "an image of them: praxis-mcp image from-host.",
    )
