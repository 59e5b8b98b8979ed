"""The dagger CLI: where it is, `dagger session`, the process through which this server talks to an engine, and quick
looks at whether there is an engine for it.

The SDK would start the CLI too, but blocking and without a limit in time, would hide its process, and would download
one where it finds none. The CLI itself retries an engine that is not there for as long as it is let, without a word.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.settings.sections import DaggerSettings
from praxis_mcp.support.files import home
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tracing import VARIABLES

CLI_VARIABLE = "_EXPERIMENTAL_DAGGER_CLI_BIN"
RUNNER_VARIABLE = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
PORT_VARIABLE = "DAGGER_SESSION_PORT"
TOKEN_VARIABLE = "DAGGER_SESSION_TOKEN"  # noqa: S105 - the name of a variable

INSTALL_CLI = (
    "Install the dagger CLI, 0.19 or newer (https://docs.dagger.io/install: brew install dagger/tap/dagger, or "
    "curl -fsSL https://dl.dagger.io/dagger/install.sh | BIN_DIR=$HOME/.local/bin sh), or name one in the settings: "
    "engines.dagger.cli."
)

_MAX_ANNOUNCEMENT = 64 * 1024
_KEPT_CLI_LINES = 50
_END_GRACE = 5.0
"""Seconds that the CLI has to end by itself once its standard input is closed."""


@dataclass(frozen=True, slots=True)
class SessionAddress:
    """Where a session listens, on this machine's loopback, and the token that it wants."""

    port: int
    token: str = field(repr=False)


def session_in_environment() -> SessionAddress | None:
    """The session that this process was started in (`dagger run praxis-mcp …`), if it was.

    Raises:
        EngineUnavailable: the environment names one, but wrongly.
    """
    port, token = os.environ.get(PORT_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    if not port:
        return None
    if not token or not port.isdecimal():
        raise EngineUnavailable(
            f"{PORT_VARIABLE} is set, but {f'is not a port: {port}' if token else f'{TOKEN_VARIABLE} is not'}.",
            remedy=f"Start the server by `dagger run`, which sets both, or unset {PORT_VARIABLE}.",
        )
    return SessionAddress(int(port), token)


def find_cli(settings: DaggerSettings) -> Path:
    """The CLI to use: the settings', the environment's, the one on the PATH; never one downloaded on the way.

    Raises:
        EngineUnavailable: there is none, or the one named cannot be run.
    """
    named = str(settings.cli.expanduser()) if settings.cli else os.environ.get(CLI_VARIABLE)
    found = shutil.which(named or "dagger")
    if found is not None:
        return Path(found)
    if named:
        where = "engines.dagger.cli" if settings.cli else CLI_VARIABLE
        raise EngineUnavailable(f"{where} names {named}, which is not a program that can be run.", remedy=INSTALL_CLI)
    raise EngineUnavailable("The dagger CLI is not on the PATH.", remedy=INSTALL_CLI)


def runner_host(settings: DaggerSettings) -> str | None:
    """The engine's address, where one is given; else the CLI starts an engine of its own in Docker or the like."""
    return settings.runner_host or os.environ.get(RUNNER_VARIABLE)


def cli_environment(settings: DaggerSettings) -> Mapping[str, str]:
    """What `dagger session` runs with."""
    # Where spans are exported, the CLI would export its own too, in which every command stands with its arguments.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in (PORT_VARIABLE, TOKEN_VARIABLE, *VARIABLES) and not name.startswith("OTEL_")
    }
    # Without it the CLI keeps every span and log line of the session in memory.
    environment |= {"DAGGER_SILENT": "1", "DO_NOT_TRACK": "1", "DAGGER_NO_NAG": "1", "DAGGER_NO_UPDATE_CHECK": "1"}
    if settings.runner_host:
        environment[RUNNER_VARIABLE] = settings.runner_host
    return environment


class CliSession:
    """A running `dagger session`. Its standard input is its life line: when this process dies, it ends."""

    def __init__(self, process: anyio.abc.Process, cli: Path) -> None:
        self._process = process
        self._cli = cli
        self._lines: deque[str] = deque(maxlen=_KEPT_CLI_LINES)

    @classmethod
    async def start(cls, settings: DaggerSettings) -> CliSession:
        """Start it; it is not connected yet.

        Raises:
            EngineUnavailable: there is no CLI, or it cannot be started.
        """
        cli = find_cli(settings)
        try:
            process = await anyio.open_process(
                [str(cli), "session", "--label", "dagger.io/sdk.name:praxis-mcp"],
                env=cli_environment(settings),
                cwd=settings.workdir,
                start_new_session=True,  # an interrupt from the terminal is for the server, which ends its calls first
            )
        except OSError as exc:
            raise EngineUnavailable(f"{cli} cannot be started: {exc.strerror}.", remedy=INSTALL_CLI) from exc
        return cls(process, cli)

    @property
    def stderr_tail(self) -> str:
        """The end of what it wrote to standard error."""
        return "\n".join(self._lines).strip()

    async def address(self) -> SessionAddress | None:
        """Where it listens, once it has reached the engine; None if it ended without."""
        assert self._process.stdout is not None
        try:
            line = await BufferedByteReceiveStream(self._process.stdout).receive_until(b"\n", _MAX_ANNOUNCEMENT)
            answer = json.loads(line)
            return SessionAddress(int(answer["port"]), str(answer["session_token"]))
        except (anyio.IncompleteRead, anyio.DelimiterNotFound, ValueError, KeyError, TypeError):
            return None

    async def listen(self) -> None:
        """Take in standard error until it ends: a full pipe would stop the CLI."""
        assert self._process.stderr is not None
        rest = b""
        async for piece in self._process.stderr:
            *lines, rest = (rest + piece).split(b"\n")
            rest = rest[-_MAX_ANNOUNCEMENT:]
            self._lines.extend(line.decode(errors="replace") for line in lines)
        self._lines.append(rest.decode(errors="replace"))

    async def wait(self) -> int:
        """Its exit code, when it has ended."""
        return await self._process.wait()

    async def end(self, *, at_once: bool = False) -> None:
        """End it: by closing its standard input, and by force when that does not do, or `at_once` (while it still
        tries to connect, it heeds nothing else)."""
        with anyio.CancelScope(shield=True):
            if at_once and self._process.returncode is None:
                self._process.kill()
            for stop in (self._process.terminate, self._process.kill):
                with anyio.move_on_after(_END_GRACE):
                    if self._process.stdin is not None:
                        await self._process.stdin.aclose()
                    await self._process.wait()
                    break
                logger.debug("{} session does not end by itself", self._cli)
                stop()
            with anyio.move_on_after(_END_GRACE):
                await self._process.wait()
            # Not Process.aclose(): it waits without a bound for pipes that a grandchild may hold open.
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    await stream.aclose()


DAGGER_PROBE_TIMEOUT = 3.0
"""Seconds that one look takes at most."""

_RUNTIMES = ("docker", "podman", "nerdctl", "finch", "container")
_DOCKER_SOCKET = "/var/run/docker.sock"
_NAME_ENGINE = "or name a running engine in the settings: engines.dagger.runner_host."


async def probe_engine(host: str | None, docker_host: str | None) -> str:
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
        with anyio.fail_after(DAGGER_PROBE_TIMEOUT):
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
        with anyio.fail_after(DAGGER_PROBE_TIMEOUT):
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
