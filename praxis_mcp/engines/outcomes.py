"""How a run went, in words: why its command did not start, and how it ended. Every engine, the server and the command
line word it here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.errors import CommandNotFound, ExecutionError, ImageError
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.support.praxis_init import MOUNTS_STEP, Ended, EndKind, describe_exit
from praxis_mcp.support.text import size_in_words

_INSTALL = "Install it, or fix the contract's command (or the interpreter that its first line names)."
_NO_USER = re.compile(
    r"unable to find (?P<kind>user|group) (?P<name>[^\s:]+)|no matching entries in (?:passwd|group)|get user", re.I
)


class NotBegun(ExecutionError):
    """What a call was to run in could not be made: its command has surely not run."""


@dataclass(frozen=True, slots=True)
class ProgramSource:
    """Where a command's program must be.

    Attributes:
        place: as a message names it: ``this host``.
        remedy: where it has no such program.
        is_image: whether it is an image.
    """

    place: str
    remedy: str
    is_image: bool = False

    @classmethod
    def image(cls, reference: str | None) -> ProgramSource:
        """An image."""
        return cls(
            f"the image {reference}",
            "Fix the first word of the contract's command (or the interpreter that its first line names), mount the "
            "program, or choose an image that has it.",
            is_image=True,
        )


HOST = ProgramSource("this host", _INSTALL)
SANDBOX = ProgramSource(
    "the sandbox",
    f"{_INSTALL} The sandbox hides the host's /tmp, /run, TMPDIR and home directories: mount what is there.",
)


def start_failure(command: str, reason: str, source: ProgramSource) -> ExecutionError:
    """The error for a command that could not be executed.

    Args:
        command: its first word.
        reason: why, in the system's words (strerror(3)), among others perhaps.
        source: where its program must be.
    """
    low = reason.lower()
    if "argument list too long" in low:
        return ExecutionError(
            f'"{command}" cannot be started: its words and variables are too large for one command.',
            remedy="Bind large parameters to stdin or a file.",
        )
    if "exec format error" in low:
        kind = ImageError if source.is_image else ExecutionError
        return kind(
            f'"{command}" in {source.place} is not for this machine\'s processor, or is a script without a first line '
            "that names its interpreter.",
            remedy="Use a program that is built for this machine, or begin the script with #!.",
        )
    if "permission denied" in low or "is a directory" in low:
        return CommandNotFound(
            f'"{command}" in {source.place} cannot be executed.',
            remedy="Make it executable (chmod +x), and let the user that the tool runs as reach it.",
        )
    if "no such file" in low or "not found" in low or "not a directory" in low:
        return CommandNotFound(f'There is no command "{command}" in {source.place}.', remedy=source.remedy)
    return ExecutionError(f'"{command}" in {source.place} could not be started: {reason}.')


def unknown_user(image: str | None, name: str | None, kind: str = "user") -> ImageError:
    """The error for a user or group (`kind`) that a tool is to run as, and that its image does not have."""
    return ImageError(
        f'There is no {kind} "{name}" in the image {image}.',
        remedy="Name one that it has, or use numbers (user: 1000:1000).",
    )


def user_refused(blueprint: Blueprint, answer: str) -> ImageError | None:
    """The same, where that is what a container engine (runc, BuildKit) says; None where it is not."""
    match = _NO_USER.search(answer)
    return unknown_user(blueprint.image, match["name"] or blueprint.user, match["kind"] or "user") if match else None


def end_failure(plan: Plan, end: Ended, remedy: str) -> ExecutionError | None:
    """The error behind the end of a call that was handed to praxis-init; None when the command itself ended so.

    Args:
        plan: the call.
        end: what praxis-init reports.
        remedy: where it could not be set up.
    """
    if end.kind is EndKind.SETUP_FAILED and end.step == MOUNTS_STEP:
        places = ", ".join(str(mount.source) for mount in plan.blueprint.mounts)
        return NotBegun(
            f"{plan.blueprint.tool} was not started: what it mounts ({places}) was replaced after it had been checked.",
            remedy="Call again. If it persists, another program, or a tool with a writable mount there, changes it.",
        )
    if end.kind is EndKind.SETUP_FAILED:
        return NotBegun(
            f"{plan.blueprint.tool} could not be set up in its container: {end.step}: {end.reason}.", remedy=remedy
        )
    if end.kind is EndKind.EXEC_FAILED:
        return start_failure(plan.call.argv[0], end.reason, ProgramSource.image(plan.blueprint.image))
    return None


def describe_end(result: ExecutionResult) -> str:
    """How a run ended, in a few words: ``exit code 3``."""
    if result.timed_out:
        return "timed out"
    if result.out_of_memory:
        return "out of memory"
    return "its end is not known" if result.exit_code is None else describe_exit(result.exit_code)


def describe_failed_run(contract: ToolContract, result: ExecutionResult) -> str:
    """How a run ended that did not succeed, as a sentence."""
    name, spec = contract.name, contract.engine_spec
    if result.timed_out:
        return f"{name} was stopped at its time limit of {spec.timeout:g} s, with all that it had started."
    if result.out_of_memory:
        limit = getattr(spec, "memory_limit", None)
        return f"{name} ran out of memory{f' (limit {size_in_words(limit)})' if limit else ''} and was killed."
    if result.exit_code is None:
        return f"{name} failed; how it ended is not known."
    return f"{name} failed with {describe_exit(result.exit_code)}."
