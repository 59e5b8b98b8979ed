"""bubblewrap: found, tried out, and asked to put a command into a sandbox.

Only what version 0.4 (2019) knows is used; what is here is Linux's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, NamedTuple, TypeVar

import anyio

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.cgroups import RunGroup
from praxis_mcp.engines.host.process import Launch, run_process
from praxis_mcp.engines.mounts.layout import Step, StepKind
from praxis_mcp.engines.outcomes import ProgramSource, start_failure
from praxis_mcp.engines.output import StreamCollector, Streams
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import CommandNotFound, ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.praxis_init import Ended, EndKind, praxis_init_path
from praxis_mcp.support.processes import NamespaceTree
from praxis_mcp.support.tasks import BackgroundTasks

BUBBLEWRAP_PROBE_TIMEOUT = 4.0
"""Seconds for trying it out."""
LOOK_AGAIN_AFTER = 30.0
"""Seconds after which a bubblewrap that was not there is looked for again."""
OWN_PROCESSES = 2
"""Processes in a run's group that are not the tool's, whose limit must not pay for them: bubblewrap and its init."""

SHARED_MEMORY = 64 * 1024 * 1024
"""Bytes of a sandbox's /dev/shm, as on Docker."""

_DEFAULT_MODE = 0o755
"""Of what bubblewrap makes in memory."""

START_ATTEMPTS = 5
"""Bubblewrap lists the host's mounts and then treats each: one that goes in between, as Docker's do with every
container that ends, makes it fail. The command has not started then, so it may try again."""

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


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """A bubblewrap that works here.

    Attributes:
        program: where it is.
        version: as it says.
        keeps_out_late_mounts: whether it can be started in a mount namespace of its own (`RunGroup.prefix`). AppArmor
            may let bubblewrap make one, and nobody else.
        binds_descriptors: whether it mounts what a descriptor holds, and sees to it that it was that: 0.10, and what
            Debian 12 and Ubuntu 22.04 have as 0.8, 0.6 and 0.9 with their fixes of CVE-2024-42472.
    """

    program: str
    version: str
    keeps_out_late_mounts: bool = True
    binds_descriptors: bool = True

    name: ClassVar[str] = "bubblewrap"

    @property
    def title(self) -> str:
        """Itself and its version."""
        return f"{self.name} {self.version}"

    @property
    def sizes(self) -> bool:
        """Whether it bounds file systems in memory: since 0.7."""
        numbers = [int(part) for part in self.version.split(".")[:2] if part.isdecimal()]
        return numbers >= [0, 7]

    @property
    def note(self) -> str:
        """What it cannot do here; empty where there is nothing to say."""
        notes: list[str] = []
        if not self.keeps_out_late_mounts:
            notes.append(
                "what the host mounts during a call appears in it: this user may make no mount namespace beforehand"
            )
        if not self.binds_descriptors:
            notes.append(
                "it mounts by path, which a tool with a writable mount around it could replace after the check: update "
                "bubblewrap (0.10, or your distribution's fix of CVE-2024-42472)"
            )
        return "; ".join(notes)


@dataclass(frozen=True, slots=True)
class NoBubblewrap:
    """Why there is none that works here, and how to fix it."""

    reason: str
    remedy: str


class Lookup(Generic[T]):
    """What an engine needs of bubblewrap: found once and kept; where it is missing, looked for again now and then.

    Args:
        find: looks for it.
    """

    def __init__(self, find: Callable[[], Awaitable[T | NoBubblewrap]]) -> None:
        self._find = find
        self._found: T | NoBubblewrap | None = None
        self._found_at = 0.0
        self._lock: anyio.Lock | None = None

    async def get(self) -> T | NoBubblewrap:
        """What was found, or why nothing was."""
        if self._found is not None and not isinstance(self._found, NoBubblewrap):
            return self._found
        self._lock = self._lock or anyio.Lock()
        async with self._lock:
            stale = time.monotonic() - self._found_at > LOOK_AGAIN_AFTER
            if self._found is None or (isinstance(self._found, NoBubblewrap) and stale):
                self._found = await self._find()
                self._found_at = time.monotonic()
            return self._found


def isolation(*, network: bool) -> list[str]:
    """Options that separate a command from the rest of the machine, its file system aside."""
    return [*_ISOLATION, *(() if network else ("--unshare-net",))]


def mount_words(steps: Iterable[Step], *, sizes: bool) -> list[str]:
    """Options for a file system.

    Args:
        steps: what it is made of.
        sizes: see `Bubblewrap.sizes`.
    """
    return [word for step in steps for word in _mount_words(step, sizes=sizes)]


def _mount_words(step: Step, *, sizes: bool) -> list[str]:
    path, access = step.path, "" if step.writable else "ro-"
    match step.kind:
        case StepKind.ROOT:
            return ["--ro-bind", step.source or "", "/"]
        case StepKind.OVERLAY:
            return ["--bind", step.target or "", "/"]
        case StepKind.MEMORY_ROOT:  # its own root is one
            return []
        case StepKind.BIND if step.held is not None:
            return [f"--{access}bind-fd", str(step.held), path]
        case StepKind.BIND:
            return [f"--{access}bind{'-try' if step.is_optional else ''}", step.source or "", path]
        case StepKind.MEMORY:
            perms = ["--perms", f"{step.mode:o}"] if sizes and step.mode != _DEFAULT_MODE else []
            size = ["--size", str(step.size)] if sizes and step.size is not None else []
            return [*perms, *size, "--tmpfs", path]
        case StepKind.PROC:
            # Root without capabilities still owns the kernel's switches: bubblewrap 0.8 leaves /proc/sys writable to
            # it, and with kernel.core_pattern the host. All of /proc, since each part mounted singly costs 0.1 ms; what
            # a command reaches through /proc/self/fd is not of that mount.
            return ["--proc", path, *(("--remount-ro", path) if os.geteuid() == 0 else ())]
        case StepKind.DEVICES:
            # Without sizes each of the two is a file system in memory that may grow to half of the machine's.
            shared = ["--perms", "1777", "--size", str(SHARED_MEMORY), "--tmpfs", f"{path}/shm", "--remount-ro", path]
            return ["--dev", path, *(shared if sizes else ())]
        case StepKind.LINK:
            return ["--symlink", step.target or "", path]
        case StepKind.DIRECTORY:
            return ["--dir", path]
        case StepKind.CONTENT:
            return ["--ro-bind-data", str(step.held), path]
        case StepKind.NOTHING:
            return ["--ro-bind", os.devnull, path]
        case StepKind.LOCK:
            return ["--remount-ro", path]


async def find_bubblewrap() -> Bubblewrap | NoBubblewrap:
    """Look for bubblewrap, and try it out: present is not enough, since kernels, containers and AppArmor may refuse
    the namespaces."""
    program = shutil.which("bwrap") if sys.platform == "linux" else None
    if program is None:
        if sys.platform != "linux":
            return NoBubblewrap("bubblewrap exists on Linux only", "Use a contract with a container image.")
        return NoBubblewrap(
            "bwrap is not on the PATH", "Install bubblewrap (apt install bubblewrap, dnf install bubblewrap)."
        )
    found = await _tried(program, private_mounts=True)
    # Where neither works, bubblewrap's own words say why.
    return found if isinstance(found, Bubblewrap) else await _tried(program, private_mounts=False)


async def _tried(program: str, *, private_mounts: bool) -> Bubblewrap | NoBubblewrap:
    attempts = 1
    found, again = await _try_out(program, private_mounts=private_mounts)
    while again and attempts < START_ATTEMPTS:
        attempts += 1
        found, again = await _try_out(program, private_mounts=private_mounts)
    return found


async def _try_out(program: str, *, private_mounts: bool) -> tuple[Bubblewrap | NoBubblewrap, bool]:
    """What a trial shows, and whether another one may show something else."""
    steps = (Step(StepKind.ROOT, "/", "/"), Step(StepKind.PROC, "/proc"), Step(StepKind.DEVICES, "/dev"))
    words = [*mount_words(steps, sizes=False), *isolation(network=False), "--", program, "--version"]
    prefix = RunGroup((), unified=False).prefix(praxis_init_path(), private_mounts=private_mounts)
    try:
        with StatusPipe() as status:
            launch = Launch((*prefix, program, *status.options, *words), {}, descriptors=status.descriptors)
            async with StreamCollector("stdout", keep=4096) as out, StreamCollector("stderr", keep=4096) as err:
                ended = await run_process(launch, status.tree, timeout=BUBBLEWRAP_PROBE_TIMEOUT, stdout=out, stderr=err)
            exit_code = status.exit_code()
    except ExecutionError as exc:
        return NoBubblewrap(exc.message, "Reinstall bubblewrap."), False
    if exit_code == 0:
        version = out.captured.text.strip().removeprefix("bubblewrap ")
        return Bubblewrap(program, version, private_mounts, await _binds_descriptors(program)), False
    errors = err.captured.text
    reason = last_line(errors) or f"exit code {ended.exit_code}"
    if ended.timed_out:
        reason = f"no answer within {BUBBLEWRAP_PROBE_TIMEOUT:g} s"
    nothing = NoBubblewrap(
        f"{program} does not work here: {reason}",
        "Allow unprivileged user namespaces (kernel.unprivileged_userns_clone=1, an AppArmor profile for bwrap; in a "
        "container its runtime must allow them).",
    )
    return nothing, not ended.timed_out and may_try_again(errors, ended.exit_code)


async def _binds_descriptors(program: str) -> bool:
    """Whether its help names the option: version numbers do not tell, since distributions have brought it back."""
    try:
        with anyio.fail_after(BUBBLEWRAP_PROBE_TIMEOUT):
            usage = await anyio.run_process([program, "--help"], check=False)
    except (TimeoutError, OSError):
        return False
    return b"--ro-bind-fd" in usage.stdout + usage.stderr


class StatusPipe:
    """What bubblewrap tells about a sandbox: the pid of its init, and the exit code of its command.

    A context manager, which owns the pipe.
    """

    def __init__(self) -> None:
        self._text = b""

    def __enter__(self) -> StatusPipe:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._read_end)
        os.close(self._write_end)

    @property
    def options(self) -> tuple[str, ...]:
        """Options that make bubblewrap write to the pipe."""
        return "--json-status-fd", str(self._write_end)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What bubblewrap must inherit."""
        return (self._write_end,)

    def tree(self, process: subprocess.Popen[bytes]) -> NamespaceTree:
        """What can end the sandbox."""
        return NamespaceTree(process, self.init_pid)

    def init_pid(self) -> int | None:
        """The init of the sandbox's pid namespace; None until there is one."""
        return self._value("child-pid")

    def exit_code(self) -> int | None:
        """The command's own exit code (128 + signal); None where the command was never started, or was killed along
        with its sandbox."""
        return self._value("exit-code")

    def _value(self, key: str) -> int | None:
        try:
            while piece := os.read(self._read_end, 4096):
                self._text += piece
        except BlockingIOError:
            pass
        for line in self._text.splitlines():
            try:
                found = json.loads(line)
            except ValueError:  # not written to its end yet
                continue
            if isinstance(value := found.get(key), int):
                return value
        return None


def may_try_again(stderr: str, exit_code: int | None) -> bool:
    """Whether bubblewrap, which has not started the command, may have met a mount that was just going: see
    `START_ATTEMPTS`."""
    return exit_code == 1 and "execvp" not in last_line(stderr)


class Attempt(NamedTuple):
    """An attempt to run a command in bubblewrap: how bubblewrap ended, the command's exit code as bubblewrap tells it
    (None where it started none, or was killed), and when the process existed, by `time.perf_counter`."""

    ended: Ended
    exit_code: int | None
    started: float


async def run_in_bubblewrap(
    plan: Plan,
    context: ExecutionContext,
    make_group: Callable[[], RunGroup],
    attempt: Callable[[RunGroup, Streams], Awaitable[Attempt]],
    failure: Callable[[str, int | None], ExecutionError],
    later: BackgroundTasks | None = None,
) -> Finished:
    """Run a command in bubblewrap, again where another attempt may start it.

    Args:
        plan: what to run.
        context: what surrounds it.
        make_group: makes an attempt's control group.
        attempt: makes an attempt.
        failure: the error for what bubblewrap wrote and its exit code, where it did not start the command.
        later: may remove the groups.

    Raises:
        ExecutionError: see `failure`, and what `attempt` raises.
    """
    attempts = 0
    while True:
        attempts += 1
        group = make_group()
        try:
            async with context.collectors(plan) as streams:
                end, exit_code, started = await attempt(group, streams)
                ended = time.perf_counter()
                out_of_memory = group.out_of_memory
        finally:
            await group.remove(later)
        stdout, stderr = streams.captured
        if exit_code is None and not end.timed_out:
            if out_of_memory:  # it took the sandbox's own init along
                end = Ended(EndKind.SIGNAL, signal.SIGKILL)
            elif attempts < START_ATTEMPTS and may_try_again(stderr.text, end.exit_code):
                continue
            else:
                raise failure(stderr.text, end.exit_code)
        return Finished(replace(end, out_of_memory=out_of_memory), stdout, stderr, started, ended)


def bubblewrap_failure(
    command: str, stderr: str, exit_code: int | None, source: ProgramSource, hidden: str | None = None
) -> ExecutionError:
    """Why bubblewrap did not start the command, from the last line that it wrote.

    Args:
        command: its first word.
        stderr: what bubblewrap wrote.
        exit_code: bubblewrap's.
        source: where the command's program must be.
        hidden: what of the command the host has and the sandbox hides.
    """
    line = last_line(stderr)
    if "execvp" in line and hidden is not None:
        return hidden_program(command, source, hidden)
    if "execvp" in line:
        return start_failure(command, line.rpartition(": ")[2], source)
    return ExecutionError(
        f"bubblewrap could not make the sandbox: {line.removeprefix('bwrap: ') or f'exit code {exit_code}'}.",
        remedy="Check the contract's mounts, or see what `praxis-mcp doctor` says about bubblewrap."
        if line
        else "Set capture_output: true in the contract to see why.",
    )


def hidden_program(command: str, source: ProgramSource, hidden: str) -> CommandNotFound:
    """The error for a command whose program the host has and the sandbox hides.

    Args:
        command: its first word.
        source: where its program must be.
        hidden: what of the command the host has.
    """
    return CommandNotFound(
        f'There is no command "{command}" in {source.place}, which hides {hidden}.',
        remedy=f"Mount it in the contract (mounts: {{{hidden}: {hidden}}}), or list it in the settings "
        "(engines.local.visible).",
    )


def last_line(text: str) -> str:
    """The last line with something in it."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
