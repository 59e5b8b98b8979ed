"""Our own launcher: praxis-init makes the sandbox by itself, in one process, with nothing to install.

The layout travels as one message (`engines.init.layout`); what is mounted, by descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.bubblewrap import (
    BUBBLEWRAP_PROBE_TIMEOUT,
    SHARED_MEMORY,
    Bubblewrap,
    NoBubblewrap,
    find_bubblewrap,
)
from praxis_mcp.engines.host.cgroups import RunGroup
from praxis_mcp.engines.host.process import Launch, run_process
from praxis_mcp.engines.init.framing import Detail, FrameDecoder, FramingSizeError, Refused, WaitCall
from praxis_mcp.engines.init.layout import LaidMount, MountFlag, MountKind, SandboxLayout, encode_sandbox
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.engines.mounts.layout import MountLayout, Step, StepKind
from praxis_mcp.engines.outcomes import ProgramSource, end_failure, start_failure
from praxis_mcp.engines.output import StreamCollector
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.owners import OWNER_VARIABLE, Owner
from praxis_mcp.support.praxis_init import (
    MOUNTS_STEP,
    Ended,
    EndKind,
    host_init_path,
    sandbox_words,
)
from praxis_mcp.support.processes import TERM_GRACE, ProcessTree
from praxis_mcp.support.tasks import BackgroundTasks

LAUNCHER_PROCESSES = 1
"""Processes in a run's group that are not the tool's: the first of the sandbox."""

_MOUNT_POINTS = 1024 * 1024
"""Bytes of a directory in memory that is only mounted on."""
_BYTES_A_FILE = 4096
_FEWEST_FILES_IN_MEMORY = 4096
_MOST_FILES_IN_MEMORY = 1 << 18
_CONTENT_MODE = 0o644
_ALLOW_NAMESPACES = (
    "Allow unprivileged user namespaces (kernel.unprivileged_userns_clone=1, an AppArmor profile for praxis-init; in a "
    "container its runtime must allow them)."
)


@dataclass(frozen=True, slots=True)
class Launcher:
    """A praxis-init that can make sandboxes here."""

    program: str

    name: ClassVar[str] = "praxis-init"
    title: ClassVar[str] = "praxis-init"

    @property
    def note(self) -> str:
        """What it cannot do here: nothing."""
        return ""


@dataclass(frozen=True, slots=True)
class Start:
    """What is started in a sandbox.

    Attributes:
        argv: the command.
        env: its whole environment.
        directory: where it begins.
        uid, gid: whom it runs as, inside.
        host_name: of the sandbox.
        source: where the command's program must be.
        failure: the error for a command that could not be executed, by the system's words; None where `source` says
            all.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    directory: str
    source: ProgramSource
    uid: int = 0
    gid: int = 0
    host_name: str = "sandbox"
    failure: Callable[[str], ExecutionError] | None = None


class LaunchedTree(ProcessTree):
    """A command in a sandbox of praxis-init, which ends all of it, and with which all of it ends."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.grace = 2 * TERM_GRACE  # praxis-init kills after one

    async def terminate(self) -> None:
        """See the base."""
        self._send(signal.SIGTERM)

    async def kill(self) -> None:
        """See the base."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)


async def find_launcher() -> Launcher | NoBubblewrap:
    """Look for praxis-init, and try a sandbox out: kernels, containers and AppArmor may refuse the namespaces."""
    init = host_init_path() if sys.platform == "linux" else None
    if init is None:
        return NoBubblewrap("praxis-init is missing", "Reinstall praxis-mcp.")
    steps = (Step(StepKind.ROOT, "/", "/"), Step(StepKind.PROC, "/proc"), Step(StepKind.DEVICES, "/dev"))
    try:
        with ExitStack() as stack:
            laid = _laid(steps, frozenset(), stack)
            message = encode_sandbox(SandboxLayout(laid), WaitCall([os.fsencode(init), b"--version"]))
            async with StreamCollector("stdout", keep=4096) as out, StreamCollector("stderr", keep=4096) as err:
                with _exchange(message) as (message_fd, reply):
                    words = sandbox_words(str(init), message_fd, reply=reply.write_end, parent=os.getpid())
                    launch = Launch(tuple(words), {}, descriptors=(message_fd, reply.write_end, *_held(laid)))
                    await run_process(launch, LaunchedTree, timeout=BUBBLEWRAP_PROBE_TIMEOUT, stdout=out, stderr=err)
                    received = reply.read()
    except (ExecutionError, OSError) as exc:
        return NoBubblewrap(f"praxis-init makes no sandbox here: {exc}", _ALLOW_NAMESPACES)
    if received.end is not None and received.end.kind is EndKind.EXIT and received.end.number == 0:
        return Launcher(str(init))
    reason = received.text or f"no answer within {BUBBLEWRAP_PROBE_TIMEOUT:g} s"
    return NoBubblewrap(f"praxis-init makes no sandbox here: {reason}", _ALLOW_NAMESPACES)


async def find_sandbox(choice: Literal["auto", "own", "bubblewrap"]) -> Launcher | Bubblewrap | NoBubblewrap:
    """What makes sandboxes here: our own launcher where it works, else bubblewrap.

    Args:
        choice: one of the two alone, or ``auto``.
    """
    if choice == "bubblewrap":
        return await find_bubblewrap()
    own = await find_launcher()
    if isinstance(own, Launcher) or choice == "own":
        return own
    other = await find_bubblewrap()
    if not isinstance(other, NoBubblewrap):
        return other
    return NoBubblewrap(f"{own.reason}; {other.reason}", f"{own.remedy} {other.remedy}")


async def run_in_launcher(
    launcher: Launcher,
    plan: Plan,
    context: ExecutionContext,
    view: MountLayout,
    laid_out: tuple[Sequence[Step], frozenset[str]],
    group: RunGroup,
    start: Start,
    later: BackgroundTasks | None = None,
) -> Finished:
    """Run a command in a sandbox of praxis-init, to its end or to its deadline.

    Args:
        launcher: makes it.
        plan: what to run.
        context: what surrounds it.
        view: whose descriptors are closed once the sandbox has its own.
        laid_out: the steps of the file system, and which places may grow (`MountLayout.growing`).
        group: the control group, which is removed.
        start: the command.
        later: may remove the group.

    Raises:
        CommandNotFound: there is no such command.
        ExecutionError: the sandbox could not be made.
    """
    began = 0.0
    try:
        with ExitStack() as stack:
            fixed = plan.blueprint
            laid = _laid(*laid_out, stack)
            layout = SandboxLayout(
                laid,
                os.fsencode(start.directory),
                os.fsencode(start.host_name),
                start.uid,
                start.gid,
                host_network=fixed.network is not Network.NONE,
                groups=_groups(group, stack),
            )
            call = WaitCall(
                [os.fsencode(word) for word in start.argv],
                {os.fsencode(name): os.fsencode(value) for name, value in start.env.items()},
                kill_after=TERM_GRACE,
                seccomp=filter_for(fixed),
            )
            message_fd, reply = stack.enter_context(_exchange(encode_sandbox(layout, call)))
            launch = Launch(
                tuple(sandbox_words(launcher.program, message_fd, reply=reply.write_end, parent=os.getpid())),
                {OWNER_VARIABLE: str(Owner.current())},  # praxis-init's own, not the tool's
                stdin=plan.call.stdin,
                capture=fixed.capture_output,
                descriptors=(message_fd, reply.write_end, *_held(laid), *(held for _, held in layout.groups)),
                own_session=False,
            )

            def on_start() -> None:
                nonlocal began
                began = time.perf_counter()
                view.close()  # the sandbox has its own by now, and a call may last

            async with context.collectors(plan) as streams:
                ended = await run_process(
                    launch,
                    LaunchedTree,
                    timeout=fixed.limits.timeout,
                    stdout=streams.stdout,
                    stderr=streams.stderr,
                    on_start=on_start,
                )
                finished = time.perf_counter()
                out_of_memory = group.out_of_memory
            received = reply.read()
    except FramingSizeError as exc:
        raise start_failure(start.argv[0], os.strerror(errno.E2BIG), start.source) from exc
    except (OSError, ValueError) as exc:  # no more descriptors; a word or path that a message cannot carry
        raise ExecutionError(f"The sandbox for {plan.blueprint.tool} cannot be laid out: {exc}.") from exc
    finally:
        view.close()
        await group.remove(later)
    end = _end(plan, received, start, timed_out=ended.timed_out, out_of_memory=out_of_memory)
    return Finished(replace(end, out_of_memory=out_of_memory), *streams.captured, began, finished)


def _end(plan: Plan, received: _Received, start: Start, *, timed_out: bool, out_of_memory: bool) -> Ended:
    end = received.end
    if end is not None and end.kind in (EndKind.EXIT, EndKind.SIGNAL):
        return Ended.by_code(end.exit_code, timed_out=timed_out)
    if timed_out:
        return Ended(EndKind.TIMEOUT)
    if end is not None and end.kind is EndKind.EXEC_FAILED:
        raise (start.failure or (lambda reason: start_failure(start.argv[0], reason, start.source)))(end.reason)
    if end is not None and end.kind is EndKind.SETUP_FAILED and end.step == MOUNTS_STEP:
        raise end_failure(plan, end, "") or ExecutionError(received.text)
    if end is None and out_of_memory:  # it took the first process of the sandbox along
        return Ended(EndKind.SIGNAL, signal.SIGKILL)
    raise ExecutionError(
        f"The sandbox for {plan.blueprint.tool} could not be made: {received.text or 'it was killed'}",
        remedy="Check the contract's mounts, or see what `praxis-mcp doctor` says about the engine.",
    )


@dataclass(slots=True)
class _Received:
    """What praxis-init has replied."""

    end: Ended | None = None
    text: str = ""


class _Reply:
    """The pipe that a reply comes through."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)

    def read(self) -> _Received:
        """All that has come."""
        received, data = _Received(), b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._read_end, 65536):
                data += piece
        with contextlib.suppress(ValueError):  # it was torn: praxis-init was killed
            for event in FrameDecoder().feed(data):
                match event:
                    case Ended():
                        received.end = event
                    case Detail():
                        received.text = event.text
                    case Refused():
                        received.text = event.reason
                    case _:
                        pass
        return received

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self.write_end)


@contextmanager
def _exchange(message: bytes) -> Iterator[tuple[int, _Reply]]:
    """A descriptor of the message, and what takes the reply."""
    descriptor = os.memfd_create("praxis-layout")
    reply = _Reply()
    try:
        with os.fdopen(os.dup(descriptor), "wb") as copy:
            copy.write(message)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor, reply
    finally:
        os.close(descriptor)
        reply.close()


def _held(laid: Sequence[LaidMount]) -> tuple[int, ...]:
    return tuple(mount.descriptor for mount in laid if mount.descriptor is not None)


def _groups(group: RunGroup, stack: ExitStack) -> list[tuple[int, int]]:
    """The control group, as the message has it: so that the sandbox begins its life there."""
    found: list[tuple[int, int]] = []
    for place in group.places:
        if group.unified:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        else:
            descriptor = os.open(place / "tasks", os.O_WRONLY)
        stack.callback(os.close, descriptor)
        found.append((2 if group.unified else 1, descriptor))
    return found


def _laid(steps: Sequence[Step], growing: frozenset[str], stack: ExitStack) -> list[LaidMount]:
    """The steps as praxis-init takes them; what is given by path is opened, and closed with the stack.

    Raises:
        OSError: something cannot be opened.
    """
    found: list[LaidMount] = []
    for step in steps:
        held = step.held
        if held is None and step.source is not None:
            try:
                held = os.open(step.source, os.O_PATH)
            except FileNotFoundError:
                if step.is_optional:
                    continue
                raise
            stack.callback(os.close, held)
        makes = MountFlag.MAKES_PLACE if step.path in growing else 0
        found.append(_mount(step, os.fsencode(step.path), held, makes))
    return found


def _mount(step: Step, path: bytes, held: int | None, makes: int) -> LaidMount:
    size = _MOUNT_POINTS if step.size is None else step.size
    files = min(max(size // _BYTES_A_FILE, _FEWEST_FILES_IN_MEMORY), _MOST_FILES_IN_MEMORY)
    match step.kind:
        case StepKind.ROOT:
            return LaidMount(MountKind.ROOT_DIRECTORY, path, held)
        case StepKind.OVERLAY:
            return LaidMount(MountKind.ROOT_OVERLAY, path, held, size=size, files=files)
        case StepKind.MEMORY_ROOT:
            return LaidMount(MountKind.ROOT_MEMORY, path, mode=step.mode, size=size, files=files)
        case StepKind.BIND:
            return LaidMount(MountKind.BIND, path, held, makes | step.writable * MountFlag.IS_WRITABLE)
        case StepKind.MEMORY:
            return LaidMount(MountKind.MEMORY, path, flags=makes, mode=step.mode, size=size, files=files)
        case StepKind.PROC:
            # Root owns the kernel's switches in any user namespace, and with kernel.core_pattern the machine.
            return LaidMount(MountKind.PROC, path, flags=makes | (os.geteuid() == 0) * MountFlag.LOCKS_PROC)
        case StepKind.DEVICES:
            return LaidMount(MountKind.DEVICES, path, flags=makes | MountFlag.HAS_TERMINALS, size=SHARED_MEMORY)
        case StepKind.LINK:
            return LaidMount(MountKind.LINK, path, target=os.fsencode(step.target or ""))
        case StepKind.DIRECTORY:
            return LaidMount(MountKind.DIRECTORY, path, mode=step.mode)
        case StepKind.CONTENT:
            return LaidMount(MountKind.CONTENT, path, held, makes, _CONTENT_MODE)
        case StepKind.NOTHING:
            return LaidMount(MountKind.CONTENT, path, None, makes, 0)
        case StepKind.LOCK:
            return LaidMount(MountKind.READ_ONLY, path)
