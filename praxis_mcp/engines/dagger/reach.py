"""Quick looks at what a Dagger session needs, before one is asked for.

The CLI itself retries an engine that is not there for as long as it is let, without a word.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.support.files import home

LOOK_TIMEOUT = 3.0
"""Seconds that one look takes at most."""

_RUNTIMES = ("docker", "podman", "nerdctl", "finch", "container")
_DOCKER_SOCKET = "/var/run/docker.sock"
_NAME_ENGINE = "or name a running engine in the settings: engines.dagger.runner_host."


async def check_engine(host: str | None, docker_host: str | None) -> str:
    """What was found of the engine, in a few words.

    Args:
        host: address of the engine; None: the CLI starts one in a container runtime of this machine.
        docker_host: address of the Docker daemon; None is the default socket.

    Raises:
        EngineUnavailable: nothing answers there, or this user may not speak to it.
    """
    if host is None:
        return await _check_runtime(docker_host)
    address = urlsplit(host)
    where = f"The Dagger engine at {host}"
    if address.scheme not in ("unix", "tcp"):
        return f"the engine at {host} (not asked yet)"
    try:
        with anyio.fail_after(LOOK_TIMEOUT):
            if address.scheme == "unix":
                stream = await anyio.connect_unix(address.path)
            else:
                stream = await anyio.connect_tcp(address.hostname or "", address.port or 0)
            await stream.aclose()
    except PermissionError as exc:
        raise EngineUnavailable(
            f"{where} may not be used by this user: no right to its socket.",
            remedy="Give this user the right (for example by the socket's group).",
        ) from exc
    except (OSError, TimeoutError) as exc:
        reason = "no answer in time" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
        raise EngineUnavailable(
            f"{where} cannot be reached ({reason}).",
            remedy="Start it, or fix engines.dagger.runner_host (_EXPERIMENTAL_DAGGER_RUNNER_HOST).",
        ) from exc
    return f"the engine at {host} answers"


async def _check_runtime(docker_host: str | None) -> str:
    found = [name for name in _RUNTIMES if shutil.which(name)]
    if not found:
        raise EngineUnavailable(
            f"The dagger CLI finds nothing to start its engine with ({', '.join(_RUNTIMES[:4])}).",
            remedy=f"Install Docker, {_NAME_ENGINE}",
        )
    if found != ["docker"]:
        return f"an engine is started by {found[0]} when first needed"
    address = urlsplit(docker_host or f"unix://{_DOCKER_SOCKET}")
    if address.scheme == "unix":
        await _check_docker(address.path)
    return "an engine is started by docker when first needed"


async def _check_docker(path: str) -> None:
    if _may_be_elsewhere(path):
        return
    try:
        with anyio.fail_after(LOOK_TIMEOUT):
            await (await anyio.connect_unix(path)).aclose()
    except PermissionError as exc:
        raise EngineUnavailable(
            f"The dagger CLI cannot start its engine: this user may not use Docker's socket, {path}.",
            remedy=f"sudo usermod -aG docker $USER and log in again, {_NAME_ENGINE}",
        ) from exc
    except (OSError, TimeoutError) as exc:
        raise EngineUnavailable(
            f"The dagger CLI cannot start its engine: no Docker daemon answers at {path}.",
            remedy=f"Start Docker (sudo systemctl start docker, or Docker Desktop), {_NAME_ENGINE}",
        ) from exc


def _may_be_elsewhere(path: str) -> bool:
    """Whether Docker may listen at a place that only its own contexts know (Docker Desktop, rootless, colima)."""
    own = home()
    return (
        path == _DOCKER_SOCKET and not Path(path).exists() and own is not None and (own / ".docker/contexts").is_dir()
    )
