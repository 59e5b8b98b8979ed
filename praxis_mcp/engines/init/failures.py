"""Why a command that praxis-init was handed did not start: one wording for every engine."""

from __future__ import annotations

import errno
import os

from praxis_mcp.errors import CommandNotFound, ExecutionError, ImageError
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.support.praxis_init import MOUNTS_STEP, Ended, EndKind


def end_failure(plan: Plan, end: Ended, remedy: str) -> ExecutionError | None:
    """The error behind the end of a call that was handed to praxis-init; None when the command itself ended so.

    Args:
        plan: the call.
        end: what praxis-init says.
        remedy: where it could not be set up.
    """
    if end.kind is EndKind.SETUP_FAILED and end.step == MOUNTS_STEP:
        places = ", ".join(str(mount.source) for mount in plan.blueprint.mounts)
        return ExecutionError(
            f"{plan.blueprint.tool} was not started: what it mounts ({places}) was replaced after it had been checked.",
            remedy="Call again. If it persists, another program, or a tool with a writable mount there, changes it.",
        )
    if end.kind is EndKind.SETUP_FAILED:
        return ExecutionError(
            f"{plan.blueprint.tool} could not be set up in its container: {end.step}: {os.strerror(end.number or 0)}.",
            remedy=remedy,
        )
    if end.kind is not EndKind.EXEC_FAILED:
        return None
    if end.number == errno.ENOEXEC:
        return wrong_machine(plan.blueprint)
    if end.number == errno.E2BIG:
        return ExecutionError(
            f"{plan.blueprint.tool}: its words and variables are more than Linux takes for one command.",
            remedy="Bind large parameters to stdin or a file.",
        )
    return command_not_found(plan, os.strerror(end.number or 0))


def command_not_found(plan: Plan, reason: str) -> CommandNotFound:
    """The image has no such command, or none that can be executed; `reason` says which, in the system's words."""
    blueprint, word = plan.blueprint, plan.call.argv[0]
    if "permission denied" in reason.lower() or "is a directory" in reason.lower():
        return CommandNotFound(
            f'{blueprint.tool}: "{word}" in the image {blueprint.image} cannot be executed.',
            remedy="Make it executable (chmod +x), and let the contract's user reach it.",
        )
    return CommandNotFound(
        f'{blueprint.tool}: the image {blueprint.image} has no command "{word}".',
        remedy="Fix the first word of the contract's command, mount the program, or choose an image that has it.",
    )


def wrong_machine(blueprint: Blueprint) -> ImageError:
    """The command has no format that this machine executes."""
    return ImageError(
        f"{blueprint.tool}: the command in the image {blueprint.image} is not for this machine's processor, or is a "
        "script without a first line that names its interpreter.",
        remedy="Use an image that is built for this machine, or begin the script with #!.",
    )
