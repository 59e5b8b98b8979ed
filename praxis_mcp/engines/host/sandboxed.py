"""A command for a sandbox, and what may launch it: one face for our own launcher and bubblewrap."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.cgroups import Cgroups
from praxis_mcp.engines.mounts.layout import MountLayout, Step, make_memory_file
from praxis_mcp.engines.outcomes import NotBegun, ProgramSource, start_failure
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import CommandNotFound, ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.processes import kill_orphans
from praxis_mcp.support.scratch import sweep_scratch
from praxis_mcp.support.tasks import BackgroundTasks

LOOK_AGAIN_AFTER = 30.0
"""Seconds after which a launcher that was not there is looked for again."""

_REACH = (
    "tools with network: host reach abstract sockets of other programs (an X server's, a container runtime's), which "
    "praxis-init prevents from Linux 6.12 on, with Landlock"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sandboxed:
    """A command, and the sandbox that it runs in.

    Attributes:
        argv: program and words.
        env: the environment, but for the machine's name: see `variables`.
        steps: the file system.
        layout: owns the descriptors that `steps` name.
        working_dir: where the command begins, without links.
        uid, gid: of the command, as it sees them; None: those of the server.
        host_name: the machine's name, as it sees that.
        programs: where its program must be.
        hidden: what of the command the host has and the sandbox hides.
        umask: which permissions the files that it makes lack; None: as the server's.
        memberships: its supplementary groups, where users and groups have the host's numbers and it is root without any
            capability, as in Docker; None: whatever its numbers are, it is the server's user on the host. Only our own
            launcher makes the former, and only for root.
        state: what `steps` are on this host (`MountLayout.state`), and where its blueprint has the command begin now;
            empty where nobody asked.
    """

    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    steps: tuple[Step, ...]
    layout: MountLayout
    working_dir: str
    programs: ProgramSource
    uid: int | None = None
    gid: int | None = None
    host_name: str | None = None
    hidden: str | None = None
    umask: int | None = None
    memberships: tuple[int, ...] | None = None
    state: tuple[object, ...] = ()

    @property
    def variables(self) -> Mapping[str, str]:
        """The whole environment."""
        return self.env if self.host_name is None else {"HOSTNAME": self.host_name, **self.env}

    def start_failure(self, reason: str) -> ExecutionError:
        """The error for a command that could not be executed; `reason` says why, in the system's words."""
        if self.hidden is not None:
            return CommandNotFound(
                f'There is no command "{self.argv[0]}" in {self.programs.place}, which hides {self.hidden}.',
                remedy=f"Mount it in the contract (mounts: {{{self.hidden}: {self.hidden}}}), or list it in the "
                "settings (engines.local.visible).",
            )
        return start_failure(self.argv[0], reason, self.programs)


Prepare = Callable[[], Awaitable[Sandboxed]]
"""Lays a command's sandbox out, afresh each time."""


Later = BackgroundTasks | None
"""What may do the last of a call behind its answer; None where nothing may."""


class Launcher(ABC):
    """What puts commands into sandboxes here.

    Attributes:
        name: as results and statuses name it.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def shown(self) -> str:
        """Its name and version."""

    @property
    def note(self) -> str:
        """What it cannot do here; empty where there is nothing to say."""
        return ""

    @property
    def keeps_off_abstract_sockets(self) -> bool:
        """Whether a tool with the host's network reaches no abstract socket of another program there."""
        return False

    @property
    def has_host_users(self) -> bool:
        """Whether it can make a sandbox with `Sandboxed.memberships`, for a command that is root's."""
        return False

    def notes(self, *, host_network: bool) -> str:
        """`note`, and what tools can do besides where the settings let them have the host's network."""
        reach = _REACH if host_network and not self.keeps_off_abstract_sockets else ""
        return "; ".join(filter(None, (self.note, reach)))

    @abstractmethod
    async def run(
        self, plan: Plan, context: ExecutionContext, prepare: Prepare, cgroups: Cgroups, later: Later = None
    ) -> Finished:
        """Run a command in a sandbox to its end, or to its deadline; see `run_process`.

        Args:
            plan: what to run.
            context: what surrounds it.
            prepare: see `Prepare`; the descriptors are closed here.
            cgroups: make the group that limits it.
            later: may remove the group.

        Raises:
            CommandNotFound: there is no such command in the sandbox.
            LimitUnsupported: its limits could not be set.
            ExecutionError: the sandbox could not be made, and what `prepare` raises.
        """

    @abstractmethod
    async def why_no_layer(self, place: Path) -> str | None:
        """Why it gives no root a layer that can be written; None where it does.

        Args:
            place: an empty directory to try it out in.
        """


@dataclass(frozen=True, slots=True)
class NoLauncher:
    """Why there is none that works here, and how to fix it."""

    reason: str
    remedy: str


def reap_host(cgroups: Cgroups) -> tuple[str, ...]:
    """Kill commands, and remove control groups and directories, of servers that were killed before they could. Blocks;
    names what went."""
    sweep_scratch()
    return (*kill_orphans(), *cgroups.reap())


def namespace_remedy() -> str:
    """How this user gets the namespaces that every launcher needs."""
    who = "Allow" if os.geteuid() == 0 else "Allow, by sudo or through an administrator of this machine,"
    return (
        f"{who} unprivileged user namespaces (by sysctl: user.max_user_namespaces above 0, "
        "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in a container its "
        "runtime must allow them)."
    )


class Lookup(Generic[T]):
    """What an engine needs of a launcher: found once and kept; where there is none, looked for again now and then.

    Args:
        find: looks for it.
    """

    def __init__(self, find: Callable[[], Awaitable[T | NoLauncher]]) -> None:
        self._find = find
        self._found: T | NoLauncher | None = None
        self._found_at = 0.0
        self._lock: anyio.Lock | None = None

    async def get(self) -> T | NoLauncher:
        """What was found, or why nothing was."""
        if self._found is not None and not isinstance(self._found, NoLauncher):
            return self._found
        self._lock = self._lock or anyio.Lock()
        async with self._lock:
            stale = time.monotonic() - self._found_at > LOOK_AGAIN_AFTER
            if self._found is None or (isinstance(self._found, NoLauncher) and stale):
                self._found = await self._find()
                self._found_at = time.monotonic()
            return self._found


@contextmanager
def laying_out(layout: MountLayout, plan: Plan) -> Iterator[None]:
    """Close the layout's descriptors where the body fails; what the system refuses in it is `layout_failure`."""
    try:
        yield
    except BaseException as exc:
        layout.close()
        if isinstance(exc, OSError):
            raise layout_failure(plan, exc) from exc
        raise


def layout_failure(plan: Plan, reason: Exception) -> ExecutionError:
    """The error for a sandbox that cannot be laid out."""
    return NotBegun(f"The sandbox for {plan.blueprint.tool} cannot be laid out: {reason}.")


def hold_content(content: bytes, held: ExitStack) -> int:
    """See `make_memory_file`; `held` closes it."""
    descriptor = make_memory_file(content)
    held.callback(os.close, descriptor)
    return descriptor
