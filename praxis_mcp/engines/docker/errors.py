"""What a container daemon's answers mean to the caller of a tool, and the one place where whatever fails within the
engine becomes one of our errors. Works on text and `OSError` only: no SDK here."""

from __future__ import annotations

import errno
import re
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from praxis_mcp.engines.docker.connections import ConnectionLost, Refusal
from praxis_mcp.engines.outcomes import ProgramSource, start_failure, user_refused
from praxis_mcp.errors import (
    EngineUnavailable,
    ExecutionError,
    ExecutionTimeout,
    ImageError,
    LimitUnsupported,
    PraxisError,
)
from praxis_mcp.plans.model import Plan
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.support.installation import install_command_for_extra
from praxis_mcp.support.praxis_init import EXIT_CANNOT_RUN, EXIT_NOT_FOUND, EXIT_SETUP_FAILED
from praxis_mcp.support.tasks import leaves

START_DOCKER = "Start Docker (Linux: `sudo systemctl start docker`; macOS and Windows: open Docker Desktop)"
_JOIN_GROUP = (
    "Join the group that may use Docker (`sudo usermod -aG docker $USER`, then log in again), or point DOCKER_HOST at "
    "a rootless daemon."
)

_SEE_THE_LOG = "See the daemon's log (`journalctl -u docker`)."

_NO_START = re.compile(r"not found|no such file or directory|permission denied|is a directory", re.I)
_UNSEEN = re.compile(r"\bstat(?:fs)? (?P<place>/.+): permission denied", re.I)
_EXEC = re.compile(r'exec: "|executable file|attempted to invoke a command', re.I)
_INIT_FAILED = re.compile(
    rb"^(?:\[FATAL tini \(\d+\)\] exec .* failed: |praxis-init: cannot run '.*': |.*catatonit.*failed to exec pid1: )"
    rb"(?P<reason>No such file or directory|Permission denied|Is a directory|Exec format error)\n?$",
    re.IGNORECASE | re.DOTALL,
)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it wraps, whether as cause, context or argument (urllib3 keeps them there)."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        waiting += [item for item in inner if isinstance(item, BaseException)]


def unreachable(address: str, error: BaseException) -> EngineUnavailable:
    """The daemon does not answer: why, and what fixes it."""
    # An SSLError is an OSError whose number is OpenSSL's, not the system's: 1 is not EPERM there.
    secure = [item for item in causes(error) if isinstance(item, ssl.SSLError)]
    if secure:
        return EngineUnavailable(
            f"The Docker daemon at {address} and this client do not trust each other (TLS): {secure[-1].strerror}.",
            remedy="Check the certificates in DOCKER_CERT_PATH (ca.pem, cert.pem, key.pem); REQUESTS_CA_BUNDLE and "
            "CURL_CA_BUNDLE in the environment take the place of ca.pem.",
        )
    numbers = {item.errno for item in causes(error) if isinstance(item, OSError)}
    if numbers & {errno.EACCES, errno.EPERM}:
        return EngineUnavailable(f"This user may not connect to the Docker daemon at {address}.", remedy=_JOIN_GROUP)
    if errno.ENOENT in numbers:
        return EngineUnavailable(
            f"There is no Docker socket at {address}.",
            remedy=f"Install Docker or Podman. {START_DOCKER}, or set DOCKER_HOST to where it listens.",
        )
    if errno.ECONNREFUSED in numbers:
        return EngineUnavailable(f"No Docker daemon listens at {address}.", remedy=f"{START_DOCKER}.")
    last = [item for item in causes(error) if isinstance(item, OSError) and item.strerror]
    why = f": {last[-1].strerror}" if last else ""
    return EngineUnavailable(
        f"The Docker daemon at {address} does not answer{why}.",
        remedy=f"Check DOCKER_HOST and the network. {START_DOCKER}.",
    )


def connection_lost(address: str) -> EngineUnavailable:
    """The connection ended in the middle of a call."""
    return EngineUnavailable(
        f"The connection to the Docker daemon at {address} was lost during the call.",
        remedy="Call again; if it persists, look at the daemon's log (`journalctl -u docker`).",
    )


def refused(explanation: str, plan: Plan) -> ExecutionError:
    """The daemon would not create or start the plan's container, and said why in its own words."""
    blueprint = plan.blueprint
    text = Masker(plan.call.secrets).text(explanation.strip())
    low = text.lower()
    if (_EXEC.search(text) and _NO_START.search(text)) or "exec format error" in low:
        return _start_failure(plan, text)
    if (unknown := user_refused(blueprint, text)) is not None:
        return unknown
    if "minimum memory limit" in low or "nanocpus" in low or "range of cpus" in low:
        return LimitUnsupported(f"{blueprint.tool}: the Docker daemon refuses the limit: {text}.")
    if "mounts denied" in low or "bind source path does not exist" in low:
        return ExecutionError(
            f"{blueprint.tool}: a mounted path is not on the Docker daemon's machine: {text}.",
            remedy="The daemon sees its own host's files: with Docker Desktop share the path (Settings, Resources, "
            "File sharing); from inside a container mount it at the same path.",
        )
    if (unseen := _UNSEEN.search(text)) is not None:
        return ExecutionError(
            f"{blueprint.tool}: the Docker daemon may not look at {unseen['place']}, which is mounted, or which this "
            f"machine has mounted below what is.",
            remedy="FUSE shows a file system to its own user only (sshfs, rclone …): mount it with -o allow_root "
            "(user_allow_other in /etc/fuse.conf), or let the contract mount only directories without it.",
        )
    if "unknown or invalid runtime" in low or "unknown runtime" in low:
        return EngineUnavailable(
            f"The Docker daemon lacks the OCI runtime of the settings: {text}.",
            remedy="Install it and name it in /etc/docker/daemon.json, or fix engines.docker.runtime.",
        )
    return ExecutionError(f"{blueprint.tool}: the Docker daemon could not run it: {text}.")


def init_failure(plan: Plan, exit_code: int | None, stderr: bytes) -> ExecutionError | None:
    """The error behind exit code 125 to 127 of an init in front of the command, recognized by its one line on
    standard error; None when the command itself ended so."""
    if exit_code == EXIT_SETUP_FAILED and stderr.startswith(b"praxis-init: cannot set up "):
        return ExecutionError(
            f"{plan.blueprint.tool} could not be set up in its container: {stderr.decode(errors='replace').strip()}.",
            remedy="Its limits may be too tight to start anything (pids_limit, memory_limit).",
        )
    match = _INIT_FAILED.match(stderr) if exit_code in (EXIT_CANNOT_RUN, EXIT_NOT_FOUND) else None
    if match is None:
        return None
    return _start_failure(plan, match["reason"].decode())


def _start_failure(plan: Plan, reason: str) -> ExecutionError:
    return start_failure(plan.call.argv[0], reason, ProgramSource.image(plan.blueprint.image))


def pull_failure(image: str, text: str) -> ImageError:
    """A pull failed, and the daemon said why."""
    low = text.lower()
    login = f"`docker login {image.split('/')[0] if '.' in image.split('/')[0] else ''}".rstrip() + "`"
    if any(part in low for part in ("manifest unknown", "not found: manifest", "manifest for")):
        return ImageError(f"There is no image {image}: its repository has no such tag.", remedy="Fix the tag.")
    if any(part in low for part in ("denied", "does not exist", "unauthorized", "authentication required", "no basic")):
        return ImageError(
            f"The image {image} does not exist, or needs a login.",
            remedy=f"Check the spelling; for a private one run {login} as the server's user.",
        )
    if any(part in low for part in ("toomanyrequests", "rate limit")):
        return ImageError(f"The registry limits pulls of {image} just now.", remedy=f"Wait, or run {login}.")
    if "no space left" in low:
        return ImageError(f"There is no room for the image {image}.", remedy="Free some: `docker system prune`.")
    if any(part in low for part in ("invalid reference", "repository name must")):
        return ImageError(f'"{image}" is not an image reference.', remedy="Write one such as python:3.11-slim.")
    if image.startswith("localhost/"):
        return ImageError(
            f"The Docker daemon does not have the image {image}, and no registry answers at localhost: {text.strip()}.",
            remedy="If `praxis-mcp image ls` lists it, write engine: sandbox in the contract, which has those images; "
            f"else make it (docker build -t {image} …, or praxis-mcp image from-host {image} PROGRAM…).",
        )
    return ImageError(
        f"The image {image} could not be pulled: {text.strip()}.",
        remedy="Check that the daemon reaches the registry (network, proxy, DNS), or bring the image in with "
        "`docker load`.",
    )


def sdk_missing() -> EngineUnavailable:
    """The Docker SDK for Python is not installed."""
    return EngineUnavailable(
        f"The Docker engine needs the Docker SDK for Python, which {sys.executable} lacks.",
        remedy=f"Install it: {install_command_for_extra('docker')}",
    )


@contextmanager
def translate_errors(address: Callable[[], str], plan: Plan | None = None) -> Iterator[None]:
    """Around all that the engine does for a caller.

    Args:
        address: where the daemon is; called when there is an error.
        plan: what is being run.

    Raises:
        ExecutionError: the daemon refused, the connection to it broke, or a file could not be read or written, alone or
            in a group of exceptions. A defect leaves as what it is.
    """
    try:
        yield
    except (Refusal, ConnectionLost, OSError, BaseExceptionGroup) as exc:
        found = leaves(exc)
        if not all(isinstance(leaf, (Refusal, ConnectionLost, OSError, PraxisError)) for leaf in found):
            raise
        ours = next((leaf for leaf in found if isinstance(leaf, PraxisError)), None)
        if ours is not None:
            raise ours from ours.__cause__
        raise _translation(found[0], address(), plan) from exc


def _translation(error: BaseException, address: str, plan: Plan | None) -> ExecutionError:
    tool = f"{plan.blueprint.tool}: " if plan is not None else ""
    match error:
        case Refusal(status=503):
            return EngineUnavailable(
                f"The Docker daemon at {address} does no work now: {error.explanation.strip()}.", remedy=_SEE_THE_LOG
            )
        case Refusal() if plan is not None:
            return refused(error.explanation, plan)
        case Refusal():
            return EngineUnavailable(
                f"The Docker daemon at {address} refused a request: {error.explanation.strip()}.", remedy=_SEE_THE_LOG
            )
        case ConnectionLost():
            return connection_lost(address)
        case TimeoutError():
            return ExecutionTimeout(
                f"{tool}the Docker daemon at {address} did not answer in time.",
                remedy="It may be overloaded or hung: see its log, and restart it.",
            )
        case OSError():
            place = f" ({error.filename})" if error.filename else ""
            return ExecutionError(
                f"{tool}the server's own files failed it: {error.strerror or error}{place}.",
                remedy="See whether the disk is full, and who may write to the records and the temporary directory.",
            )
    raise AssertionError(f"no translation of {error!r}")
