"""Limits by control groups: one for each run, made before it, removed after it, found again by the next server.

Version 1 (a hierarchy for each controller; "cgroup-v1" in the kernel's documentation) and version 2 ("cgroup-v2").
Groups are made where this process may: at the top of a hierarchy as root; next to its own group where that was
delegated to its user, as systemd does for the services of a user. Nothing here takes longer than a few calls to a file
system in memory, so all but the wait for a dying group is done on the event loop.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from praxis_mcp.errors import LimitUnsupported
from praxis_mcp.plans.model import Capability, Limits, Plan
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import join_words, praxis_init_path
from praxis_mcp.support.processes import Owner
from praxis_mcp.support.tasks import BackgroundTasks

CGROUP_REMOVE_TIMEOUT = 2.0
"""Seconds for a group to lose the last of its processes, which are dead already."""

CONTROLLERS: Mapping[Capability, str] = {
    Capability.MEMORY_LIMIT: "memory",
    Capability.CPU_LIMIT: "cpu",
    Capability.PIDS_LIMIT: "pids",
}
_TRY_AGAIN = 0.005
_PERIOD = 100_000
_MIN_QUOTA = 1000
"""Microseconds: the kernel's default period, and the least that it grants in one (sched-bwc)."""
_SHELL = "/bin/sh"
_MOVE = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 1; shift; done; shift; exec "$@"'
_OF_SWAP = ("memory.swap.max", "memory.memsw.limit_in_bytes")
"""Kernels without swap accounting lack these."""
_NAME = re.compile(r"praxis-mcp-(\d+-\d+-\d+)-[0-9a-zA-Z]+")


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where groups can be made.

    Attributes:
        bases: controller → directory in which groups that have it are made.
        unified: whether that is version 2.
        reason: why a controller is missing.
        default_pids: the limit on processes of runs whose plan has none; None means no limit.
    """

    bases: Mapping[str, Path] = field(default_factory=dict)
    unified: bool = False
    reason: str = "there are no control groups here"
    default_pids: int | None = None

    @property
    def enforces(self) -> frozenset[Capability]:
        """The limits that can be set."""
        return frozenset(item for item, controller in CONTROLLERS.items() if controller in self.bases)

    @property
    def notes(self) -> dict[Capability, str]:
        """Why the others cannot."""
        return {item: self.reason for item, controller in CONTROLLERS.items() if controller not in self.bases}

    def for_run(self, plan: Plan, *, own_processes: int) -> RunGroup:
        """The group for a plan; see `make`. One without directories where there is nothing to limit.

        Raises:
            LimitUnsupported: it cannot be made.
        """
        try:
            return self.make(plan.call.run_id, plan.blueprint.limits, own_processes=own_processes)
        except OSError as exc:
            raise LimitUnsupported(
                f"The limits of {plan.blueprint.tool} could not be set ({exc.strerror}: {exc.filename}).",
                remedy="See what `praxis-mcp doctor` says about the engine.",
            ) from exc

    def make(self, run_id: str, limits: Limits, *, own_processes: int) -> RunGroup:
        """A group for one run.

        Args:
            run_id: its id.
            limits: what the run may use.
            own_processes: processes in the group that are not the tool's.

        Raises:
            OSError: it cannot be made; nothing is left of it.
        """
        values: dict[str, dict[str, str]] = {}
        if (pids := limits.pids or self.default_pids) is not None:
            values["pids"] = {"pids.max": str(pids + own_processes)}
        if limits.memory is not None:
            values["memory"] = self._memory(limits.memory)
        if limits.cpus is not None:
            values["cpu"] = self._cpu(limits.cpus)
        values = {controller: files for controller, files in values.items() if controller in self.bases}
        if not values:
            return RunGroup((), self.unified)
        name = f"praxis-mcp-{Owner.current()}-{run_id}"
        group = RunGroup(tuple({self.bases[controller] / name: None for controller in values}), self.unified)
        try:
            for place in group.places:
                place.mkdir()
            for controller, files in values.items():
                for file, value in files.items():
                    path = f"{self.bases[controller]}/{name}/{file}"
                    with suppress(FileNotFoundError) if file in _OF_SWAP else nullcontext():
                        _write(path, value)
        except BaseException:
            group.try_remove()
            raise
        return group

    def _memory(self, limit: int) -> dict[str, str]:
        # No swap on top: a limit on memory alone only slows a tool down.
        if self.unified:
            return {"memory.max": str(limit), "memory.swap.max": "0"}
        return {"memory.limit_in_bytes": str(limit), "memory.memsw.limit_in_bytes": str(limit)}

    def _cpu(self, cores: float) -> dict[str, str]:
        quota = max(round(cores * _PERIOD), _MIN_QUOTA)
        if self.unified:
            return {"cpu.max": f"{quota} {_PERIOD}"}
        return {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": str(quota)}

    def reap(self) -> tuple[str, ...]:
        """Remove the groups of servers that were killed, and what may still run in them; their names."""
        removed: list[str] = []
        for base in dict.fromkeys(self.bases.values()):
            for place in base.glob("praxis-mcp-*"):
                found = _NAME.fullmatch(place.name)
                if found is not None and Owner.parse(found[1]).is_gone:
                    group = RunGroup((place,), self.unified)
                    group.kill()
                    if group.try_remove():
                        removed.append(place.name)
        return tuple(dict.fromkeys(removed))


def _write(path: str, value: str) -> None:
    """Write to a file of the kernel's, which takes a value in one piece."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class RunGroup:
    """The group of one run: its directory, or one for each controller."""

    places: tuple[Path, ...]
    unified: bool

    def prefix(
        self, init: Path | None, *, private_mounts: bool = False, overlay: tuple[Path, int] | None = None
    ) -> list[str]:
        """The words to put in front of a command, so that it begins its life in the group.

        A process that is moved, and in version 2 one that moves itself, takes a lock that waits for all processors to
        pass a quiet state, some 10 ms (cgroup_threadgroup_rwsem, before Linux 6.18). A version 1 thread that moves
        itself does not, nor does a child that begins in a group of version 2: praxis-init knows both ways.

        Only bubblewrap is started behind this; our own launcher enters the group by itself. Where praxis-init is
        missing (it is for x86-64 and arm64, or nothing here could compile it) bubblewrap is all there is, and a shell
        that moves itself and unshare(1) stand in: without them its tools would have no limits, and see what the host
        mounts later.

        Args:
            init: praxis-init, where there is one.
            private_mounts: the command also begins in a mount namespace of its own, where what the host mounts later
                does not appear: bubblewrap would let it in, writable.
            overlay: see `join_words`; needs praxis-init.
        """
        if init is not None:
            if not self.places and not private_mounts and overlay is None:
                return []
            group = self.places[0] if self.unified and self.places else None
            files = [] if self.unified else [place / "tasks" for place in self.places]
            return join_words(str(init), files, group=group, private_mounts=private_mounts, overlay=overlay)
        files = [place / ("cgroup.procs" if self.unified else "tasks") for place in self.places]
        words = [_SHELL, "-c", _MOVE, "sh", *map(str, files), "--"] if files else []
        if private_mounts:
            # Where it is for the server: the environment is the tool's.
            words += [shutil.which("unshare") or "/usr/bin/unshare", "--mount", "--propagation", "private"]
            words += [] if os.geteuid() == 0 else ["--map-current-user"]
            words.append("--")
        return words

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process because the memory limit was reached."""
        name = "memory.events" if self.unified else "memory.oom_control"
        for place in self.places:
            # Of version 1 only the group that limits memory has the file, and most calls have no such limit.
            if not os.access(f"{place}/{name}", os.R_OK):
                continue
            with suppress(OSError):
                for line in (place / name).read_text().splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill" and value != "0":
                        return True
        return False

    def kill(self) -> None:
        """Kill every process in it."""
        for place in self.places:
            with suppress(OSError):
                for pid in (place / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)

    def try_remove(self) -> bool:
        """Remove it, if it is empty; whether it is gone."""
        gone = True
        for place in self.places:
            try:
                place.rmdir()
            except FileNotFoundError:
                continue
            except OSError as exc:
                if exc.errno == errno.EROFS:  # as in a container: nothing was made there either
                    continue
                if exc.errno != errno.EBUSY:
                    logger.warning("the cgroup {} cannot be removed: {}", place, exc.strerror)
                gone = False
        return gone

    async def remove(self, later: BackgroundTasks | None = None) -> None:
        """Remove it, once the kernel has finished with the processes in it; bounded, shielded from cancellation.

        Args:
            later: takes over the wait, where there is one.
        """
        if self.try_remove():
            return
        if later is not None:
            later.start(self._remove_when_empty, "remove a cgroup")
        else:
            await self._remove_when_empty()

    async def _remove_when_empty(self) -> None:
        with anyio.move_on_after(CGROUP_REMOVE_TIMEOUT, shield=True) as limit:
            while not self.try_remove():
                self.kill()
                await anyio.sleep(_TRY_AGAIN)
        if limit.cancelled_caught:
            logger.warning("the cgroup {} cannot be removed yet: a process in it does not end", self.places[0])


def find_cgroups(proc: Path = Path("/proc/self")) -> Cgroups:
    """Where this process may make groups, found out by making one. `proc`: its directory in /proc."""
    try:
        mounts = (proc / "mounts").read_text().splitlines()
        own = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return Cgroups()
    unified: Path | None = None
    bases: dict[str, Path] = {}
    for words in (line.split() for line in mounts):
        if words[2] == "cgroup2" and unified is None:
            unified = Path(words[1])
        elif words[2] == "cgroup":
            options = words[3].split(",")
            bases |= {controller: Path(words[1]) for controller in CONTROLLERS.values() if controller in options}
    if bases:
        usable = {controller: base for controller, base in bases.items() if _works(Cgroups({controller: base}))}
        return Cgroups(usable, reason=_why_not(version=1))
    if unified is None:
        return Cgroups()
    path = next((line[3:] for line in own if line.startswith("0::")), "/")
    for base in dict.fromkeys((unified, unified / path.strip("/") / "..")):
        found = Cgroups(dict.fromkeys(_enabled(base), base.resolve()), unified=True)
        if found.bases and _works(found):
            return found
    return Cgroups(reason=_why_not(version=2))


def _why_not(version: int) -> str:
    """Why controllers are missing, and what this user can do about that."""
    if os.geteuid() == 0:
        return "limits need control groups that can be written: in a container, its runtime must allow that"
    if version == 1:
        return (
            "limits need control groups, which in version 1 only root may make: start the machine with version 2 "
            "(systemd.unified_cgroup_hierarchy=1 for its kernel), or use Docker"
        )
    return (
        "limits need control groups that this user may write to: start the server by systemd-run --user --scope "
        "--quiet praxis-mcp …"
    )


def _enabled(base: Path) -> Iterable[str]:
    """The controllers that groups in a directory of version 2 have, turned on where that is allowed."""
    control = base / "cgroup.subtree_control"
    for controller in CONTROLLERS.values():
        with suppress(OSError):
            if controller not in control.read_text().split():
                control.write_text(f"+{controller}")
            if controller in control.read_text().split():
                yield controller


def _works(cgroups: Cgroups) -> bool:
    limits = Limits(timeout=1, memory=1 << 30, cpus=1.0, pids=100)
    if praxis_init_path() is None and not Path(_SHELL).exists():
        return False
    try:
        # A name of its own: two engines that look at the same moment would each find the other's in the way.
        group = cgroups.make(f"probe{os.urandom(4).hex()}", limits, own_processes=0)
    except OSError:
        return False
    return group.try_remove()
