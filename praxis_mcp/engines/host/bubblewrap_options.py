"""A sandbox as bubblewrap's options. Only what version 0.4 (2019) knows is used, or what `Bubblewrap` has found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.host.sandboxed import Sandboxed
from praxis_mcp.engines.mounts.layout import Step, StepKind
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.processes import OWNER_VARIABLE

ROOT_FOLDER, LAYER_FOLDER = "rootfs", "layer"
"""Of an image's directory: what praxis-init mounts the overlay of, and where (`join_words`)."""
_ISOLATION = (
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--new-session",
    "--die-with-parent",
    "--cap-drop",
    "ALL",
)


def options_of(plan: Plan, sandboxed: Sandboxed, *, by_descriptor: bool, sizes: bool) -> list[str]:
    """Everything that bubblewrap is to know of a sandbox, but its filter of system calls. There are secrets in it:
    it must travel over a descriptor.

    Args:
        plan: what is run.
        sandboxed: the sandbox.
        by_descriptor, sizes: see `Bubblewrap`.
    """
    options = [word for step in sandboxed.steps for word in _words(step, by_descriptor=by_descriptor, sizes=sizes)]
    options += isolation(network=plan.blueprint.network is not Network.NONE)
    if sandboxed.uid is not None and sandboxed.gid is not None:
        options += ["--unshare-user", "--uid", str(sandboxed.uid), "--gid", str(sandboxed.gid)]
    if sandboxed.host_name is not None:
        options += ["--hostname", sandboxed.host_name]
    options += ["--chdir", sandboxed.working_dir, "--unsetenv", OWNER_VARIABLE]
    for name, value in sandboxed.variables.items():
        options += ["--setenv", name, value]
    return options


def isolation(*, network: bool) -> list[str]:
    """Options that separate a command from the rest of the machine, its file system aside."""
    return [*_ISOLATION, *(() if network else ("--unshare-net",))]


def proc_words(path: str) -> Iterator[str]:
    """Options for a /proc of the sandbox's own."""
    yield from ("--proc", path)
    if os.geteuid() == 0:
        # Root without capabilities still owns the kernel's switches: bubblewrap 0.8 leaves /proc/sys writable to it,
        # and with kernel.core_pattern the host. All of /proc, since each part mounted singly costs 0.1 ms; what a
        # command reaches through /proc/self/fd is not of that mount.
        yield from ("--remount-ro", path)


def dev_words(path: str, shared_memory: int) -> Iterator[str]:
    """Options for a /dev of the sandbox's own; `shared_memory`: bytes of its shm, 0: as bubblewrap has it."""
    yield from ("--dev", path)
    if shared_memory:
        # Else each of the two is a file system in memory that may grow to half of the machine's.
        yield from ("--perms", "1777", "--size", str(shared_memory), "--tmpfs", f"{path}/shm")
        yield from ("--remount-ro", path)


def join_options(options: list[str]) -> bytes:
    """The options as bubblewrap reads them, each ended by a NUL.

    Raises:
        ExecutionError: one holds a NUL, behind which bubblewrap would find more options: a bind of the host's root,
            say.
    """
    text = "\0".join((*options, ""))
    if text.count("\0") != len(options):  # whatever an image holds, and whichever check has missed it
        raise ExecutionError(
            "The sandbox cannot be made: something in its description holds a NUL character.",
            remedy="If the tool is in an image that you do not trust, remove that (praxis-mcp image rm).",
        )
    return text.encode(errors="surrogateescape")


def _words(step: Step, *, by_descriptor: bool, sizes: bool) -> Iterator[str]:
    """The options for a step."""
    path, source = step.path, step.source or ""
    match step.kind:
        case StepKind.ROOT:
            yield from ("--ro-bind", source, path)
        case StepKind.LAYERED_ROOT:
            yield from ("--bind", str(Path(source).parent / LAYER_FOLDER / "root"), path)
        case StepKind.EMPTY_ROOT:  # bubblewrap's own is one
            pass
        case StepKind.BIND if by_descriptor and step.descriptor is not None:
            yield from ("--bind-fd" if step.writable else "--ro-bind-fd", str(step.descriptor), path)
        case StepKind.BIND:
            yield from ("--bind" if step.writable else "--ro-bind-try" if step.optional else "--ro-bind", source)
            yield path
        case StepKind.EMPTY:
            if sizes and step.size:
                yield from ("--perms", f"{step.mode:o}", "--size", str(step.size))
            yield from ("--tmpfs", path)
        case StepKind.PROC:
            yield from proc_words(path)
        case StepKind.DEV:
            yield from dev_words(path, step.size if sizes else 0)
        case StepKind.LINK:
            yield from ("--symlink", source, path)
        case StepKind.DIRECTORY:
            yield from ("--dir", path)
        case StepKind.CONTENT if step.descriptor is not None:
            yield from ("--ro-bind-data", str(step.descriptor), path)
        case StepKind.CONTENT:
            yield from ("--ro-bind", os.devnull, path)
        case StepKind.FREEZE:
            yield from ("--remount-ro", path)
