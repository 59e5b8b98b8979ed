"""What Dagger says when it cannot, in our own exceptions, each with a remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from praxis_mcp.engines.dagger.cli import INSTALL_CLI
from praxis_mcp.engines.outcomes import ProgramSource, start_failure, user_refused
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout, ImageError
from praxis_mcp.plans.model import Blueprint

MINIMUM_VERSION = (0, 19)

_MAX_DETAIL = 600
_TRACE = re.compile(r"\s*\[traceparent:[0-9a-f-]+\]")
_NOT_STARTED = re.compile(r"exec(utable file)?:? .*not found|exec: .*no such file|exec format error")
_COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class QueryFailed(Exception):
    """The engine refused a query, or could not do what it asks.

    Attributes:
        message: the engine's own words.
        extensions: what the error carries besides; `_type` is ``EXEC_ERROR`` for a command that failed.
    """

    def __init__(self, message: str, extensions: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.message = tidy(message)
        self.extensions = extensions

    @property
    def is_exec_error(self) -> bool:
        """Whether a command ran and failed in a way that the engine takes for its own failure."""
        return self.extensions.get("_type") == "EXEC_ERROR"


class SessionLost(EngineUnavailable):
    """The session broke while a call was using it; the call is not run again."""


def tidy(text: str) -> str:
    """An engine's message without colours and trace ids, on one line, bounded."""
    plain = _TRACE.sub("", _COLOR.sub("", text))
    line = " ".join(plain.split())
    return line if len(line) <= _MAX_DETAIL else f"{line[:_MAX_DETAIL]} …"


def check_version(version: str) -> None:
    """Refuse an engine that is too old; an unreadable version (a build of one's own) passes.

    Raises:
        EngineUnavailable: it is older than `MINIMUM_VERSION`.
    """
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) < MINIMUM_VERSION:
        wanted = ".".join(map(str, MINIMUM_VERSION))
        raise EngineUnavailable(
            f"The Dagger engine is {version}, older than {wanted}.",
            remedy=f"Upgrade CLI and engine to {wanted} or newer. {INSTALL_CLI}",
        )


_NO_OPENING: tuple[tuple[str, str, str], ...] = (
    (
        r"permission denied",
        "may not use the container engine's socket",
        "Let this user use it: sudo usermod -aG docker $USER and log in again, or name an engine of your own in "
        "the settings: engines.dagger.runner_host.",
    ),
    (
        r"cannot connect to the docker daemon|is the docker daemon running|docker\.sock: connect",
        "finds no running Docker daemon, which it needs to start its engine",
        "Start Docker (sudo systemctl start docker, or Docker Desktop), or name a running engine in the settings: "
        "engines.dagger.runner_host.",
    ),
    (
        r"no fallback container driver found|executable file not found in \$path|no container runtime",
        "finds no container runtime to start its engine with",
        "Install Docker or Podman, or name a running engine in the settings: engines.dagger.runner_host.",
    ),
    (
        r"incompatible|not compatible|minimum version|version mismatch",
        "does not fit the engine's version",
        f"Use the same version of CLI and engine. {INSTALL_CLI}",
    ),
    (
        r"failed to pull|manifest unknown|failed to run container|dial tcp: lookup|no such host|i/o timeout",
        "cannot fetch its engine's image",
        "Check the network, or name a running engine in the settings: engines.dagger.runner_host.",
    ),
    (
        r"unknown command|unknown flag|usage:",
        "does not know `session`: it is not a dagger CLI, or a very old one",
        INSTALL_CLI,
    ),
)


def opening_failed(stderr_tail: str, host: str | None) -> EngineUnavailable:
    """The error for a CLI that ended, or kept silent, instead of opening a session.

    Args:
        stderr_tail: what it wrote to standard error.
        host: the engine's address, where one was given.
    """
    detail = tidy(stderr_tail)
    text = f" It says: {detail}" if detail else ""
    if host is not None and not re.search(_NO_OPENING[3][0], detail, re.IGNORECASE):
        denied = re.search("permission denied", detail, re.IGNORECASE)
        return EngineUnavailable(
            f"The Dagger engine at {host} {'may not be used by this user' if denied else 'cannot be reached'}.{text}",
            remedy="Give this user the right to use its socket."
            if denied
            else "Start it, or fix engines.dagger.runner_host (_EXPERIMENTAL_DAGGER_RUNNER_HOST).",
        )
    for pattern, what, remedy in _NO_OPENING:
        if re.search(pattern, detail, re.IGNORECASE):
            return EngineUnavailable(f"The dagger CLI {what}.{text}", remedy=remedy)
    return EngineUnavailable(
        f"The dagger CLI opened no session.{text}", remedy="Run `dagger version` and `dagger core version` by hand."
    )


def image_failed(reference: str, failure: QueryFailed, local: str = "") -> ImageError:
    """The error for an image that cannot be provided.

    Args:
        reference: the image.
        failure: what the engine says about the registry.
        local: why it was not taken from this machine, where that was tried.
    """
    text = failure.message
    also = f" {local}" if local else ""
    if re.search(r"invalid reference format|failed to parse image address", text):
        return ImageError(f'"{reference}" is not an image reference ({text}).', remedy="Fix `image` in the contract.")
    if re.search(r"unauthorized|authentication|denied|forbidden|\b401\b|\b403\b", text, re.IGNORECASE):
        return ImageError(
            f"The registry does not give out {reference}, or there is no such image ({text}).{also}",
            remedy="Check the name, and log in: `docker login`, or engines.registries in the settings.",
        )
    if re.search(r"not found|manifest unknown|no match for platform", text, re.IGNORECASE) and "lookup" not in text:
        return ImageError(
            f"There is no image {reference} ({text}).{also}", remedy="Check name and tag, or build it locally."
        )
    return ImageError(
        f"The image {reference} cannot be fetched: the registry is out of reach ({text}).{also}",
        remedy="Check the engine's network, pull the image into the local Docker, or name a tar file for it in the "
        "settings: engines.dagger.images.",
    )


def run_failed(blueprint: Blueprint, failure: QueryFailed, command: str | None = None) -> ExecutionError:
    """The error for a query about a call that failed without the command having run to an end.

    Args:
        blueprint: the tool's.
        failure: what the engine says.
        command: the first word of what it was to run; None where it prepared the container.
    """
    tool, text = blueprint.tool, failure.message
    if command is not None and _NOT_STARTED.search(text):
        return start_failure(command, text, ProgramSource.image(blueprint.image))
    if re.search(r"insecure|security", text) and "not allowed" in text:
        return ExecutionError(
            f"The Dagger engine forbids privileged commands, which {tool} asks for ({text}).",
            remedy="Allow insecureRootCapabilities in the engine's configuration, or remove privileged: true.",
        )
    if (unknown := user_refused(blueprint, text)) is not None:
        return unknown
    return ExecutionError(f"Dagger could not run {tool}: {text}.", remedy="See the Dagger engine's log.")


def no_answer(tool: str, bound: float, grace: float) -> ExecutionTimeout:
    """The error for an engine that is silent past a call's deadline: whatever runs in it, the tool is not at fault.

    Args:
        tool: the tool's name.
        bound: seconds that the engine was waited for.
        grace: the part of them that is beyond the tool's own timeout.
    """
    return ExecutionTimeout(
        f"The Dagger engine gave no answer for {tool} within {bound:g} s, {grace:g} s beyond "
        "the tool's own timeout; the call was cancelled, and the tool, if it ran, killed.",
        remedy="Look at the Dagger engine's log and load, or raise engines.dagger.grace in the settings.",
    )
