"""What is fixed for a contract, made in the engine once a session: image, user, working directory, caches, and the
files of our own that every command finds below `/.praxis`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.dagger.images import Image
from praxis_mcp.engines.dagger.query import Field, value_at
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.errors import LimitUnsupported
from praxis_mcp.plans.model import Blueprint, Limits
from praxis_mcp.plans.view import depth
from praxis_mcp.support.praxis_init import KEPT, OTHER_MACHINES, praxis_init_path

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
