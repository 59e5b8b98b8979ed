"""What a call starts from: a contract's image, out of a tar file, the local Docker or a registry; what that says of
itself; and the base container that is made of it once a session.

The local Docker is asked first, as the Docker engine does: an image that was built here under a name must not be
taken from a stranger who has the same name in a public registry. It is handed over as a tar file, because Dagger knows
such a file by its content, also in the next session (an image taken by ``host.containerImage`` it does not).

The base container has all that is fixed for a contract: image, user, working directory, caches, and the files of our
own that every command finds below `/.praxis`.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE

import anyio
import anyio.to_thread

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.base import StatusListener
from praxis_mcp.engines.dagger.errors import QueryFailed, image_failed
from praxis_mcp.engines.dagger.query import Field, chain, value_at
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.pulls import BUILD_TIMEOUT, PULL_TIMEOUT, build_failed, packed_build
from praxis_mcp.errors import ImageError, LimitUnsupported
from praxis_mcp.plans.builds import DOCKERFILE, PIP_VARIABLES, PLACE, install_command
from praxis_mcp.plans.model import Blueprint, ImageBuild, Limits
from praxis_mcp.plans.secrets import resolve_secret
from praxis_mcp.plans.view import depth
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.praxis_init import KEPT, OTHER_MACHINES, praxis_init_path
from praxis_mcp.support.scratch import remove_directory
from praxis_mcp.support.text import visible

ARCHIVES = ("oci-archive:", "docker-archive:")
LOCAL = "docker-daemon:"
"""Prefixes that name the source outright, as skopeo(1) spells them."""

_DOCKER_BUILD = ("host", "directory", "dockerBuild", "sync")
_INSPECT_TIMEOUT = 10.0
_DEFAULT_REGISTRY = "docker.io"

_FACTS = (
    Field("id"),
    Field("user"),
    Field("entrypoint"),
    Field("platform"),
    Field("envVariables", {}, (Field("name"), Field("value"))),
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a session.

    Attributes:
        id: of the container made from it, in that session.
        name: its reference with a digest, for results.
        entrypoint: its own.
        user: its own, empty for root.
        machine: the processor that the engine runs it on (``amd64``, ``arm64``).
        has_python: whether it is a Python image, as far as one can tell.
        variables: its own environment.
    """

    id: str
    name: str
    entrypoint: tuple[str, ...]
    user: str
    machine: str
    has_python: bool
    variables: tuple[tuple[str, str], ...] = ()


class ImageSource:
    """The images of one engine; what a tag meant is kept for as long as the engine lives."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        """`scratch`: an existing directory for images taken from the local Docker."""
        self._settings = settings
        self._scratch = scratch
        self._pinned: dict[str, str] = {}

    async def load(
        self, session: Session, reference: str, tars: Mapping[str, Path], on_status: StatusListener | None
    ) -> Image:
        """The image in this session; fetched when it is not there yet.

        Raises:
            ImageError: it cannot be provided; says why, and what to do.
        """

        async def make() -> Image:
            try:
                with anyio.fail_after(PULL_TIMEOUT):
                    return await self._load(session, reference, tars, on_status)
            except TimeoutError as exc:
                raise ImageError(
                    f"The image {reference} was not there after {PULL_TIMEOUT:g} s.",
                    remedy="Pull it beforehand, or check the engine's network.",
                ) from exc

        return await session.once(("image", reference), make)

    async def build(
        self,
        session: Session,
        reference: str,
        build: ImageBuild,
        tool: str,
        tars: Mapping[str, Path],
        on_status: StatusListener | None,
    ) -> Image:
        """The image of a contract in this session, built by Dagger, which keeps what it has built for the next one.

        Raises:
            ImageError: it cannot be built; says why.
            LimitUnsupported: it is to be built without a cache.
        """
        if build.is_fresh:
            raise LimitUnsupported(
                f"The image of {tool} cannot be built afresh: Dagger has no switch to build without its cache.",
                remedy="Empty Dagger's cache (dagger core engine local-cache prune), and build it again.",
            )

        async def make() -> Image:
            if on_status is not None:
                on_status(f"building the image of {tool}")
            place = Path(tempfile.mkdtemp(dir=self._scratch))
            try:
                with anyio.fail_after(BUILD_TIMEOUT):
                    await anyio.to_thread.run_sync(_unpack, build, tool, place)
                    steps = [Field("host"), Field("directory", {"path": str(place), "noCache": True})]
                    if build.dockerfile is not None:
                        steps.append(Field("dockerBuild", {"dockerfile": DOCKERFILE}))
                        made = value_at(await session.query(chain(steps, Field("sync"))), *_DOCKER_BUILD)
                    else:
                        source = value_at(await session.query(chain(steps, Field("id"))), "host", "directory", "id")
                        # Not by a Dockerfile: Dagger asks a registry for whatever that is from.
                        base = await self.load(session, build.sources[0], tars, on_status)
                        made = await _install(session, build, base, source)
                    found = await session.select([Field("loadContainerFromID", {"id": made})], *_FACTS)
            except QueryFailed as exc:
                streams = (exc.extensions.get("stdout"), exc.extensions.get("stderr")) if exc.is_exec_error else ()
                why = f"its command failed ({exc.message})" if streams else exc.message
                log = visible("\n".join(str(stream) for stream in streams if stream))
                raise build_failed(tool, why, log) from exc
            except TimeoutError as exc:
                raise build_failed(tool, f"it took longer than {BUILD_TIMEOUT:g} s", "") from exc
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(remove_directory, place)
            return _image(found, reference, build.base or reference)

        return await session.once(("image", reference), make)

    async def lacks(self, reference: str, tars: Mapping[str, Path]) -> bool:
        """Whether a registry has to be asked for it: neither a tar file nor the local Docker has it, nor has it been
        pulled for this engine. What Dagger itself keeps does not help: it resolves a name afresh in each session."""
        if reference in tars or reference.startswith((*ARCHIVES, LOCAL)) or reference in self._pinned:
            return False
        return isinstance(await self._find_in_docker(reference), str)

    async def _load(
        self, session: Session, reference: str, tars: Mapping[str, Path], on_status: StatusListener | None
    ) -> Image:
        prefix = next((prefix for prefix in ARCHIVES if reference.startswith(prefix)), None)
        tar = tars.get(reference) or (Path(reference.removeprefix(prefix)) if prefix else None)
        if tar is not None:
            return await self._from_tar(session, reference, self._settings.root / tar.expanduser())
        known = reference in self._pinned
        if reference.startswith(LOCAL) or not known:
            local = await self._from_docker(session, reference.removeprefix(LOCAL), on_status)
            if isinstance(local, Image):
                return local
            if reference.startswith(LOCAL) or self._settings.pull == "never":
                raise ImageError(
                    f"The image {reference} cannot be taken from this machine: {local}",
                    remedy="Pull or build it there, or name a tar file for it: engines.dagger.images.",
                )
        else:
            local = ""
        if on_status is not None and not known:
            on_status(f"pulling {reference}")
        try:
            return await self._from_registry(session, reference)
        except QueryFailed as exc:
            raise image_failed(reference, exc, f"It is not on this machine either: {local}" if local else "") from exc

    async def _from_registry(self, session: Session, reference: str) -> Image:
        address = self._pinned.get(reference, reference)
        steps = [Field("container"), *await self._login(session, reference), Field("from", {"address": address})]
        container = await session.select(steps, *_FACTS, Field("imageRef"))
        name = str(container["imageRef"])
        self._pinned[reference] = name
        return _image(container, name, reference)

    async def _login(self, session: Session, reference: str) -> list[Field]:
        first, slash, _ = reference.partition("/")
        host = first if slash and re.search(r"[.:]|^localhost$", first) else _DEFAULT_REGISTRY
        login = self._settings.engines.registries.get(host)
        if login is None:
            return []
        password = resolve_secret(login.secret, self._settings, f"the registry {host}")
        secret = await session.query(
            Field("setSecret", {"name": f"praxis-registry-{host}", "plaintext": password}, (Field("id"),))
        )
        arguments = {"address": host, "username": login.username, "secret": value_at(secret, "setSecret", "id")}
        return [Field("withRegistryAuth", arguments)]

    async def _from_tar(self, session: Session, reference: str, tar: Path, name: str = "") -> Image:
        if not await anyio.Path(tar).is_file():
            raise ImageError(f"The image {reference} comes from {tar}, which is not a file.", remedy="Fix the path.")
        try:
            found = await session.query(
                chain([Field("host"), Field("file", {"path": str(tar), "noCache": True})], Field("id"), Field("digest"))
            )
            file = value_at(found, "host", "file")
            steps = [Field("container"), Field("import", {"source": file["id"]})]
            imported = await session.select(steps, *_FACTS)
        except QueryFailed as exc:
            raise ImageError(
                f"The image {reference} cannot be read from {tar}: {exc.message}.",
                remedy="Make it by `docker save`, or by a build with an OCI tar as output, for the engine's platform.",
            ) from exc
        return _image(imported, name or f"{reference}@{file['digest']}", reference)

    async def _from_docker(self, session: Session, reference: str, on_status: StatusListener | None) -> Image | str:
        """The image, or why it cannot be taken from there."""
        found = await self._find_in_docker(reference)
        if isinstance(found, str):
            return found
        docker, image_id = found
        tar = self._scratch / f"{image_id.removeprefix('sha256:')}.tar"
        if not await anyio.Path(tar).exists():
            if on_status is not None:
                on_status(f"taking {reference} from the local Docker")
            half = tar.with_suffix(f".{os.urandom(4).hex()}")
            words = ("save", "--output", str(half), reference)
            code, _, message = await self._run_client(docker, *words, limit=PULL_TIMEOUT)
            if code != 0:
                return message
            await anyio.Path(half).replace(tar)
        digest = image_id if image_id.startswith("sha256:") else f"sha256:{image_id}"
        return await self._from_tar(session, reference, tar, f"{reference}@{digest}")

    async def _find_in_docker(self, reference: str) -> tuple[str, str] | str:
        """The program that has the image, and the image's id there; or why none has it."""
        docker = next((found for name in ("docker", "podman") if (found := shutil.which(name))), None)
        if docker is None:
            return "there is no docker command."
        if "@" in reference:
            return "it is named by its digest."
        code, image_id, message = await self._run_client(docker, "image", "inspect", "--format", "{{.Id}}", reference)
        return (docker, image_id) if code == 0 else message or "no such image."

    async def _run_client(self, *words: str, limit: float = _INSPECT_TIMEOUT) -> tuple[int, str, str]:
        host = self._settings.engines.docker.host
        environment = {**os.environ, "DOCKER_HOST": host} if host else None
        try:
            with anyio.fail_after(limit):
                done = await anyio.run_process(words, check=False, stdout=PIPE, stderr=PIPE, env=environment)
        except TimeoutError:
            return -1, "", f"`{Path(words[0]).name} {words[1]}` gave no answer in {limit:g} s."
        except OSError as exc:
            return -1, "", f"{words[0]} cannot be started: {exc.strerror}."
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return done.returncode, done.stdout.decode().strip(), lines[-1] if lines else ""


async def _install(session: Session, build: ImageBuild, base: Image, source: str) -> str:
    """Add packages to an image; gives the id of what came of it.

    Args:
        session, build: see `ImageSource.build`.
        base: the image.
        source: the id of the directory with what pip is given.
    """
    steps = [Field("loadContainerFromID", {"id": base.id})]
    if build.only_resolves:
        steps.append(Field("withUser", {"name": "root"}))
    steps.append(Field("withMountedDirectory", {"path": PLACE, "source": source}))
    steps += [Field("withEnvVariable", {"name": name, "value": value}) for name, value in PIP_VARIABLES.items()]
    steps.append(Field("withExec", {"args": install_command(build)}))
    made = (await session.select(steps, Field("sync")))["sync"]
    undone = [Field("withoutEnvVariable", {"name": name}) for name in PIP_VARIABLES]
    steps = [Field("loadContainerFromID", {"id": made}), *undone, Field("withoutMount", {"path": PLACE})]
    return str((await session.select(steps, Field("id")))["id"])


def _unpack(build: ImageBuild, tool: str, place: Path) -> None:
    with tempfile.TemporaryFile(dir=place.parent) as packed:
        packed_build(build, tool, packed)
        with tarfile.open(fileobj=packed, mode="r:") as archive:
            # Links stay links, wherever they lead: the engine takes them as they are.
            archive.extractall(place, filter=lambda member, _: member)  # noqa: S202 - our own archive


def _image(container: Mapping[str, object], name: str, reference: str) -> Image:
    entrypoint, listed = container["entrypoint"], container["envVariables"]
    assert isinstance(entrypoint, list)
    assert isinstance(listed, list)
    variables = tuple((str(item["name"]), str(item["value"])) for item in listed)
    base = reference.rpartition("/")[2].partition(":")[0].partition("@")[0]
    return Image(
        id=str(container["id"]),
        name=name,
        entrypoint=tuple(map(str, entrypoint)),
        user=str(container["user"] or ""),
        machine=str(container["platform"]).partition("/")[2],
        has_python="PYTHON_VERSION" in dict(variables) or base == "python",
        variables=variables,
    )


DIRECTORY = "/.praxis"
INIT = f"{DIRECTORY}/init"
REPORT = f"{DIRECTORY}/report"
STDOUT = f"{DIRECTORY}/stdout"
STDERR = f"{DIRECTORY}/stderr"
STDIN = f"{DIRECTORY}/stdin"
SOCKET = f"{DIRECTORY}/call"
PIP_CACHE = f"{DIRECTORY}/pip-cache"

ENGINE_VARIABLES = ("OTEL_", "TRACEPARENT", "TRACESTATE", "BAGGAGE", "DAGGER_", "_DAGGER_", "_EXPERIMENTAL_DAGGER_")
"""How the names of variables begin that Dagger gives every exec, over those of the same names: they lead to its own
telemetry, and a tool must not have them. praxis-init takes them away."""


def carried_name(name: str) -> str:
    """The name under which a variable of the image, or of the contract, passes by Dagger's own to praxis-init."""
    return f"{KEPT}{name}" if name.startswith(ENGINE_VARIABLES) else name


@dataclass(frozen=True, slots=True)
class BaseContainer:
    """A container that lacks nothing but the call.

    Attributes:
        id: in its session.
        image: what it was made from.
        has_init: whether praxis-init is in it.
        own: the fields that have mounted its caches and its directory for artifacts.
    """

    id: str
    image: Image
    has_init: bool
    own: tuple[Field, ...] = ()


async def make_base_container(session: Session, blueprint: Blueprint, image: Image) -> BaseContainer:
    """The base container of a blueprint, made when this session does not have it yet.

    Raises:
        LimitUnsupported: the blueprint needs praxis-init, and there is none for the engine's machine.
        QueryFailed: the engine cannot make it.
    """
    return await session.once(("base", _fixed(blueprint)), lambda: _make(session, blueprint, image))


def _fixed(blueprint: Blueprint) -> Blueprint:
    """The blueprint without what is not part of the base container, so that more of them are equal."""
    return replace(blueprint, limits=Limits(0), mounts=(), artifacts=(), engines=(), pure=False)


async def _make(session: Session, blueprint: Blueprint, image: Image) -> BaseContainer:
    init = praxis_init_path(image.machine)
    if init is None and blueprint.network is Network.NONE:
        raise LimitUnsupported(
            f"The Dagger engine cannot run {blueprint.tool}: it cannot enforce network: none, because this "
            f"installation has no praxis-init for its processor ({image.machine}).",
            remedy=f"{OTHER_MACHINES} Or choose another engine.",
        )
    owner = {"owner": blueprint.user} if blueprint.user else {}
    wanted: list[Field] = []
    if init is not None:
        wanted.append(Field("host", {}, (Field("file", {"path": str(init), "noCache": True}, (Field("id"),)),)))
    caches = {f"cache{index}": path for index, path in enumerate(_caches(blueprint, image))}
    for alias, path in caches.items():
        wanted.append(Field("cacheVolume", {"key": f"praxis-{blueprint.cache_key(path)}"}, (Field("id"),), alias))
    if blueprint.artifact_dir is not None:
        wanted.append(Field("directory", {}, (Field("id"),)))
    ids = await session.query(*wanted) if wanted else {}

    steps: list[Field] = []
    if init is not None:
        source = value_at(ids, "host", "file", "id")
        steps.append(Field("withFile", {"path": INIT, "source": source, "permissions": 0o755}))
        # Anyone's, because praxis-init writes them as the tool's own user.
        for path in (REPORT, STDOUT, STDERR):
            steps.append(Field("withNewFile", {"path": path, "contents": "", "permissions": 0o666}))
        for name, value in image.variables:
            if (carried := carried_name(name)) != name:
                steps.append(Field("withEnvVariable", {"name": carried, "value": value}))
    own = [
        Field("withMountedCache", {"path": path, "cache": ids[alias]["id"], **owner}) for alias, path in caches.items()
    ]
    if PIP_CACHE in caches.values():
        steps.append(Field("withEnvVariable", {"name": "PIP_CACHE_DIR", "value": PIP_CACHE}))
    if blueprint.artifact_dir is not None:
        empty = value_at(ids, "directory", "id")
        own.append(Field("withMountedDirectory", {"path": blueprint.artifact_dir, "source": empty, **owner}))
    own.sort(key=lambda field: depth(str(field.arguments["path"])))
    steps += own
    if blueprint.user is not None:
        steps.append(Field("withUser", {"name": blueprint.user}))
    if blueprint.working_dir is not None:
        steps.append(Field("withWorkdir", {"path": blueprint.working_dir}))

    made = await session.select([Field("loadContainerFromID", {"id": image.id}), *steps], Field("id"))
    return BaseContainer(made["id"], image, init is not None, tuple(own))


def _caches(blueprint: Blueprint, image: Image) -> tuple[str, ...]:
    # Without a network pip fetches nothing.
    has_pip = image.has_python and blueprint.network is not Network.NONE and blueprint.cache_owner
    pip = (PIP_CACHE,) if has_pip else ()
    return (*blueprint.cache_dirs, *pip)
