"""A sandbox as the message that praxis-init lays it out from, and the descriptors that the message speaks of."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.host.cgroups import RunGroup
from praxis_mcp.engines.host.sandboxed import Sandboxed, hold_content, layout_failure
from praxis_mcp.engines.init.framing import FramingError, FramingSizeError, WaitCall
from praxis_mcp.engines.init.layout import MAX_LAYOUT_HOST_NAME, LaidMount, MountFlag, MountKind, SandboxLayout
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.engines.mounts.layout import Step, StepKind
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.processes import TERM_GRACE
from praxis_mcp.support.rooted import CHANGED, open_path

DEFAULT_SIZE = 1024**3
"""Bytes of a file system in memory whose size nobody says."""

_PAGE = 4096
_FEWEST_FILES, _MOST_FILES = 16, 1 << 24  # of a layout (FRAMING.md)
_KINDS = {
    StepKind.ROOT: MountKind.ROOT_DIRECTORY,
    StepKind.LAYERED_ROOT: MountKind.ROOT_OVERLAY,
    StepKind.EMPTY_ROOT: MountKind.ROOT_MEMORY,
    StepKind.BIND: MountKind.BIND,
    StepKind.EMPTY: MountKind.MEMORY,
    StepKind.PROC: MountKind.PROC,
    StepKind.DEV: MountKind.DEVICES,
    StepKind.LINK: MountKind.LINK,
    StepKind.DIRECTORY: MountKind.DIRECTORY,
    StepKind.CONTENT: MountKind.CONTENT,
    StepKind.FREEZE: MountKind.READ_ONLY,
}
_IN_MEMORY = frozenset({StepKind.EMPTY_ROOT, StepKind.EMPTY})
_MADE = frozenset({*_IN_MEMORY, StepKind.DIRECTORY, StepKind.CONTENT})
_MAKES_PLACES = frozenset({StepKind.BIND, StepKind.EMPTY, StepKind.PROC, StepKind.DEV, StepKind.CONTENT})
# As plain numbers: the operators of an enum are Python, and every call lays a handful of steps out.
_MAKES_PLACE, _IS_WRITABLE, _LOCKS_PROC, _HAS_TERMINALS = (
    flag.value for flag in (MountFlag.MAKES_PLACE, MountFlag.IS_WRITABLE, MountFlag.LOCKS_PROC, MountFlag.HAS_TERMINALS)
)
_SOURCES = frozenset({StepKind.ROOT, StepKind.LAYERED_ROOT, StepKind.BIND})


def call_of(plan: Plan, sandboxed: Sandboxed) -> WaitCall:
    """The command of a sandbox, as praxis-init takes it."""
    return WaitCall(
        [os.fsencode(word) for word in sandboxed.argv],
        {os.fsencode(name): os.fsencode(value) for name, value in sandboxed.variables.items()},
        kill_after=TERM_GRACE,
        seccomp=filter_for(plan.blueprint),
    )


def pack(
    plan: Plan, sandboxed: Sandboxed, group: RunGroup, held: ExitStack, encode: Callable[[SandboxLayout], bytes]
) -> list[int]:
    """The descriptor of the message for praxis-init, and behind it all else that praxis-init must inherit; `held`
    closes them.

    Raises:
        ExecutionError: the message cannot be made.
    """
    try:
        groups = list(_groups(group, held))
        mounts = list(mounts_of(sandboxed.steps, held))
        layout = SandboxLayout(
            mounts,
            os.fsencode(sandboxed.working_dir),
            os.fsencode(sandboxed.host_name or os.uname().nodename)[:MAX_LAYOUT_HOST_NAME],
            os.geteuid() if sandboxed.uid is None else sandboxed.uid,
            os.getegid() if sandboxed.gid is None else sandboxed.gid,
            host_network=plan.blueprint.network is not Network.NONE,
            groups=groups,
            memberships=sandboxed.memberships,
        )
        message = hold_content(encode(layout), held)
    except FramingSizeError as exc:
        raise sandboxed.start_failure(os.strerror(errno.E2BIG)) from exc
    except (FramingError, OSError) as exc:
        raise layout_failure(plan, exc) from exc
    return [message, *descriptors_of(mounts), *(number for _, number in groups)]


def mounts_of(steps: Sequence[Step], held: ExitStack) -> Iterator[LaidMount]:
    """The steps as praxis-init has them; opens what only a path names."""
    for step in steps:
        kind, descriptor = step.kind, step.descriptor
        if descriptor is None and step.source is not None and kind in _SOURCES:
            try:
                descriptor = open_path(step.source)
            except OSError as exc:
                if step.optional and exc.errno in CHANGED:
                    continue
                raise
            held.callback(os.close, descriptor)
        flags = 0
        if step.makes_place and kind in _MAKES_PLACES:
            flags |= _MAKES_PLACE
        if step.writable:
            flags |= _IS_WRITABLE
        if kind is StepKind.PROC and os.geteuid() == 0:
            # Root without capabilities still owns the kernel's switches.
            flags |= _LOCKS_PROC
        if kind is StepKind.DEV:
            flags |= _HAS_TERMINALS
        in_memory = kind in _IN_MEMORY
        size = step.size or (DEFAULT_SIZE if in_memory else 0)
        yield LaidMount(
            _KINDS[kind],
            os.fsencode(step.path),
            descriptor,
            flags,
            step.mode if kind in _MADE else 0,
            size,
            _files_of(size) if in_memory or kind is StepKind.LAYERED_ROOT else 0,
            os.fsencode(step.source or "") if kind is StepKind.LINK else None,
        )


def _files_of(size: int) -> int:
    """How many files a file system in memory may hold: one for each page, since each takes memory too."""
    return min(max(size // _PAGE, _FEWEST_FILES), _MOST_FILES)


def _groups(group: RunGroup, held: ExitStack) -> Iterator[tuple[int, int]]:
    for place in group.places:
        if group.unified:
            descriptor = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            descriptor = os.open(f"{place}/tasks", os.O_WRONLY | os.O_CLOEXEC)
        held.callback(os.close, descriptor)
        yield (2 if group.unified else 1), descriptor


def descriptors_of(mounts: Sequence[LaidMount]) -> list[int]:
    """Those that praxis-init must inherit for these mounts."""
    return [mount.descriptor for mount in mounts if mount.descriptor is not None]
