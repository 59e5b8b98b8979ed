"""The Docker daemon, through its SDK: the only module that knows the SDK, and where its errors are translated.

The SDK blocks, so each of its calls runs in a thread, of which no more than `_THREADS` do at once. What lasts as long
as a tool (attach, wait) does not: see connections.py. Only where the daemon is behind ssh, TLS or a Windows pipe do
these hold threads, of their own.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from praxis_mcp.engines.docker import errors as docker_errors
from praxis_mcp.engines.docker.connections import (
    Address,
    AttachedStream,
    ConnectionLost,
    ImageLookup,
    PendingExit,
    Refusal,
    answer_message,
    open_attached,
    open_wait,
)
from praxis_mcp.engines.docker.sdk import ThreadedDuplex, ThreadedPendingExit, set_api_version, unix_socket_of
from praxis_mcp.errors import EngineUnavailable, ExecutionTimeout, ImageError
from praxis_mcp.support.installation import install_command

if TYPE_CHECKING:
    import docker

API_TIMEOUT = 60
"""Seconds that the daemon may take to answer a request that does not wait for a tool."""
_THREADS = 40
_SAVE_PIECE = 1024 * 1024
_DONE, _GONE, _CONFLICT = 200, 404, 409

T = TypeVar("T")


class ImageMissing(ImageError):
    """The daemon does not have the image."""


@dataclass(frozen=True, slots=True)
class Version:
    """What the daemon is: `name` (``Docker``, ``Podman``) and its version."""

    name: str
    number: str

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class DockerDaemon:
    """One daemon. Made by `connect`; `close` ends its connections.

    Every method raises `EngineUnavailable` when the daemon cannot be reached, `ExecutionTimeout` when it does not
    answer within `API_TIMEOUT`, and `Refusal` when it will not.
    """

    def __init__(self, client: docker.DockerClient, address: str) -> None:
        self._api = client.api
        self.address = address
        self._native = _native_address(self._api)
        self._limiter = anyio.CapacityLimiter(_THREADS)

    @classmethod
    async def connect(cls, host: str | None = None) -> DockerDaemon:
        """Connect, and agree on a version of the API.

        Args:
            host: address of the daemon; None asks the environment (DOCKER_HOST, the CLI's context).

        Raises:
            EngineUnavailable: the SDK is missing, or the daemon is down or out of reach; says how to fix it.
            Refusal: the daemon will not even say which version it is.
        """
        return cls(*await anyio.to_thread.run_sync(_connect, host, abandon_on_cancel=True))

    @property
    def is_local(self) -> bool:
        """Whether the daemon sees this machine's files: it listens on a socket or pipe, or on loopback."""
        return _is_local(self._api)

    @property
    def keeps_wait(self) -> bool:
        """Whether a wait can be registered before a container starts, so that it may remove itself."""
        return self._native is not None

    @property
    def has_socket(self) -> bool:
        """Whether it listens on a Unix socket of this machine."""
        return self._native is not None and bool(self._native.path)

    @property
    def carries_stdin(self) -> bool:
        """Whether standard input can be ended while output goes on: TLS and Windows pipes cannot close one half."""
        return not self._api.base_url.startswith(("https://", "http+docker://localnpipe"))

    async def ping(self) -> None:
        """Return when it answers at all."""
        await self._call(_ping, self._api)

    async def version(self) -> Version:
        """What it is; a busy one may take seconds to say it."""
        found = await self._call(self._api.version)
        components = found.get("Components") or [{}]
        podman = "podman" in str(components[0].get("Name", "")).lower()
        return Version("Podman" if podman else "Docker", str(found.get("Version", "")))

    async def info(self) -> Mapping[str, Any]:
        """What it can (SystemInfo)."""
        return await self._call(self._api.info)

    async def create(self, config: Mapping[str, Any]) -> str:
        """Create a container; its id.

        Never abandoned when cancelled: a container that is created after its id was dropped would stay for good.

        Raises:
            ImageMissing: the image is not there.
        """

        answer = await self._call(self._api.create_container_from_config, dict(config), abandon=False)
        return str(answer["Id"])

    async def start(self, container: str) -> None:
        """Start it."""
        await self._call(self._api.start, container)

    async def kill(self, container: str) -> bool:
        """Kill every process in it; False where it was not running any more."""
        return await self._status(self._api.kill, container) == _DONE

    async def remove(self, container: str) -> None:
        """Remove it with its anonymous volumes, running or not; return when it is gone, no matter who removed it."""
        status = await self._status(lambda: self._api.remove_container(container, force=True, v=True))
        if status == _CONFLICT:  # it is removing itself just now: wait until it has
            await self._status(lambda: self._api.wait(container, condition="removed"))

    async def inspect(self, container: str) -> Mapping[str, Any]:
        """Its state and configuration."""
        return await self._call(self._api.inspect_container, container)

    async def containers(self, label: str) -> list[Mapping[str, Any]]:
        """All containers with that label, running or not."""
        return await self._call(lambda: self._api.containers(all=True, filters={"label": [label]}))

    async def image(self, reference: str) -> Mapping[str, Any]:
        """An image.

        Raises:
            ImageMissing: it is not there.
        """
        return await self._call(self._api.inspect_image, reference)

    async def has_image(self, reference: str) -> bool:
        """Whether there is an image of that name or id."""
        try:
            await self.image(reference)
        except ImageMissing:
            return False
        return True

    async def pull(self, reference: str, on_progress: Callable[[Mapping[str, Any]], bool]) -> None:
        """Pull an image.

        Args:
            reference: the image; without tag or digest, `latest`.
            on_progress: is called with each event, in another thread; False ends the pull.

        Raises:
            ImageError: it cannot be provided; says why.
        """

        def pull() -> None:
            from docker.utils import parse_repository_tag

            repository, tag = parse_repository_tag(reference)
            for event in self._api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                if "error" in event:
                    raise docker_errors.pull_failure(reference, str(event["error"]))
                if not on_progress(event):
                    return

        try:
            await self._call(pull)
        except ImageMissing as exc:
            raise docker_errors.pull_failure(reference, exc.message) from exc
        except Refusal as exc:
            raise docker_errors.pull_failure(reference, exc.explanation) from exc

    async def build(self, context: IO[bytes], on_event: Callable[[Mapping[str, Any]], bool], **options: Any) -> None:
        """Build an image.

        Args:
            context: a tar archive of all that it is made of.
            on_event: is called with each event, in another thread; False ends the build.
            options: as the SDK's `build` takes them.
        """

        def build() -> None:
            for event in self._api.build(
                fileobj=context, custom_context=True, decode=True, rm=True, forcerm=True, **options
            ):
                if not on_event(event):
                    return

        await self._call(build)

    async def images(self, label: str) -> list[tuple[str, str]]:
        """The id and the first name of each image with that label, the newest first; empty where it has no name."""
        found = await self._call(lambda: self._api.images(filters={"label": [label]}))
        newest = sorted(found, key=lambda item: item.get("Created", 0), reverse=True)
        return [(item["Id"], (item.get("RepoTags") or [""])[0].removeprefix("<none>:<none>")) for item in newest]

    async def remove_image(self, name: str) -> None:
        """Remove an image by that name; nothing where it is in use, or gone."""
        await self._status(self._api.remove_image, name)

    async def save(self, reference: str, into: IO[bytes]) -> None:
        """Write an image as an archive (as ``docker save`` does).

        Raises:
            ImageMissing: it is not there.
            OSError: it cannot be written.
        """
        stopped = False

        def save() -> None:
            for piece in self._api.get_image(reference, chunk_size=_SAVE_PIECE):
                if stopped:
                    return
                into.write(piece)
            into.flush()

        try:
            await self._call(save)
        finally:
            stopped = True

    async def has_volume(self, name: str) -> bool:
        """Whether there is a volume of that name."""
        return await self._status(self._api.inspect_volume, name) == _DONE

    async def volumes(self, label: str) -> list[tuple[str, str]]:
        """The name of each volume with that label, and when it was made (RFC 3339), the oldest first."""
        found = (await self._call(self._api.volumes, {"label": label})).get("Volumes") or []
        return sorted(((item["Name"], item.get("CreatedAt") or "") for item in found), key=lambda item: item[1])

    async def remove_volume(self, name: str) -> None:
        """Remove a volume; nothing where it is in use, or gone."""
        await self._status(self._api.remove_volume, name)

    async def put(self, container: str, directory: str, archive: bytes) -> None:
        """Unpack a tar archive in a container, started or not."""
        await self._call(self._api.put_archive, container, directory, archive)

    async def attach(self, container: str, *, stdin: bool) -> AttachedStream:
        """Attach to its streams; to be done before it starts, or output is lost."""
        if self._native is not None:
            query = f"stream=1&stdout=1&stderr=1&stdin={int(stdin)}"
            with self._reachable():
                return await open_attached(self._native, f"{self._prefix}/containers/{container}/attach?{query}")
        params = {"stream": 1, "stdout": 1, "stderr": 1, "stdin": int(stdin)}
        socket = await self._call(lambda: self._api.attach_socket(container, params=params))
        return AttachedStream(ThreadedDuplex(socket))

    async def watch_exit(self, container: str) -> PendingExit:
        """Its exit code, to come. Where `keeps_wait`, to be called before it starts; else the wait begins with
        `PendingExit.status`, and the container must not remove itself."""
        if self._native is not None:
            target = f"{self._prefix}/containers/{container}/wait?condition=next-exit"
            with self._reachable():
                return await open_wait(self._native, target)

        def wait() -> int:
            with _translated(self.address):
                return int(self._api.wait(container, timeout=None)["StatusCode"])

        return ThreadedPendingExit(wait)

    def image_lookup(self) -> ImageLookup | None:
        """A kept connection for looking images up, the caller's own; None where the SDK alone reaches the daemon."""
        return ImageLookup(self._native, self._prefix) if self._native is not None else None

    async def close(self) -> None:
        """End its connections."""
        await anyio.to_thread.run_sync(self._api.close)

    @property
    def _prefix(self) -> str:
        return f"/v{self._api.api_version}"

    async def _call(self, function: Callable[..., T], *args: Any, abandon: bool = True) -> T:
        def call() -> T:
            with _translated(self.address):
                return function(*args)

        return await anyio.to_thread.run_sync(call, abandon_on_cancel=abandon, limiter=self._limiter)

    async def _status(self, function: Callable[..., Any], *args: Any) -> int:
        """`_DONE`, or `_GONE` or `_CONFLICT` where there was nothing to do it to, or not any more."""
        try:
            await self._call(function, *args)
        except Refusal as exc:
            if exc.status not in (_GONE, _CONFLICT):
                raise
            return exc.status
        return _DONE

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionLost, OSError, TimeoutError) as exc:
            raise docker_errors.unreachable(self.address, exc) from exc


def _connect(host: str | None) -> tuple[docker.DockerClient, str]:
    try:
        import docker
        import docker.constants
    except ImportError as exc:
        raise docker_errors.sdk_missing() from exc
    environment = {**os.environ, "DOCKER_HOST": host} if host else dict(os.environ)
    address = environment.get("DOCKER_HOST") or "the default socket"
    with _translated(address):
        # The SDK's "auto" asks /version for the version of the API, which a busy Podman answers in seconds; /_ping says
        # it as well, and at once.
        client = docker.DockerClient.from_env(
            environment=environment,
            timeout=API_TIMEOUT,
            version=docker.constants.DEFAULT_DOCKER_API_VERSION,
            max_pool_size=_THREADS,
        )
        agreed = _ping(client.api).get("Api-Version")
        set_api_version(client.api, agreed or client.api.version(api_version=False)["ApiVersion"])
    return client, _shown_address(client.api, address)


def _ping(api: docker.APIClient) -> Mapping[str, str]:
    """The headers of the daemon's answer (Docker Engine API, SystemPing).

    Raises:
        Refusal: it answers that it will not.
    """
    answer = api.get(f"{api.base_url}/_ping", timeout=API_TIMEOUT)
    if answer.status_code != _DONE:
        raise Refusal(answer.status_code, answer_message(answer.content))
    return answer.headers


@contextmanager
def _translated(address: str) -> Iterator[None]:
    """The SDK's errors, and those of requests beneath it, as ours."""
    import docker.errors
    import requests.exceptions

    try:
        yield
    except docker.errors.ImageNotFound as exc:
        raise ImageMissing(str(exc.explanation or exc)) from exc
    except docker.errors.APIError as exc:
        raise Refusal(exc.status_code or 500, str(exc.explanation or exc)) from exc
    except requests.exceptions.ReadTimeout as exc:
        raise ExecutionTimeout(
            f"The Docker daemon at {address} did not answer within {API_TIMEOUT} s.",
            remedy="It may be overloaded or hung: see its log, and restart it.",
        ) from exc
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
        answers = [cause for cause in docker_errors.causes(exc) if isinstance(cause, docker.errors.APIError)]
        if answers:  # to the question for the API's version, which the SDK asks when it connects
            raise Refusal(answers[0].status_code or 500, str(answers[0].explanation or exc)) from exc
        if any(isinstance(cause, ImportError) for cause in docker_errors.causes(exc)) or "paramiko" in str(exc):
            raise EngineUnavailable(
                f"The Docker daemon at {address} is reached by ssh, which needs paramiko.",
                remedy=f"Install it: {install_command('docker[ssh]')}",
            ) from exc
        raise docker_errors.unreachable(address, exc) from exc


def _native_address(api: docker.APIClient) -> Address | None:
    path = unix_socket_of(api)
    if path:
        return Address(path=path)
    parts = urlsplit(api.base_url)
    if parts.scheme == "http" and parts.hostname:
        return Address(host=parts.hostname, port=parts.port or 2375)
    return None


def _shown_address(api: docker.APIClient, configured: str) -> str:
    native = _native_address(api)
    return native.path if native and native.path else configured


def _is_local(api: docker.APIClient) -> bool:
    parts = urlsplit(api.base_url)
    if parts.scheme == "http+docker":
        return parts.hostname != "ssh"
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
