"""Our own launcher: praxis-init's sandbox form, which lays a sandbox out from one message and runs a command in it.

Nothing has to be installed for it; the kernel must let this user make namespaces. Where it does not, an AppArmor
profile may still let bubblewrap: `find_launcher` chooses.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import anyio

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.bubblewrap import find_bubblewrap
from praxis_mcp.engines.host.cgroups import Cgroups, RunGroup
from praxis_mcp.engines.host.message import DEFAULT_SIZE, call_of, descriptors_of, mounts_of, pack
from praxis_mcp.engines.host.process import EarlyEnd, Launch, ReportPipe, run_process
from praxis_mcp.engines.host.sandboxed import (
    Later,
    Launcher,
    NoLauncher,
    Prepare,
    hold_content,
    namespace_remedy,
)
from praxis_mcp.engines.host.standby import MARK, Standby, Standbys
from praxis_mcp.engines.init.framing import Detail, FrameDecoder, FramingError, Refused, WaitCall
from praxis_mcp.engines.init.layout import (
    SandboxLayout,
    encode_sandbox,
)
from praxis_mcp.engines.mounts.layout import SHARED_MEMORY, Step, StepKind
from praxis_mcp.engines.outcomes import NotBegun, end_failure
from praxis_mcp.engines.output import StreamCollector, Streams
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.settings.sections import LauncherChoice
from praxis_mcp.support.praxis_init import (
    EXIT_KILLED,
    MOUNTS_STEP,
    Ended,
    EndKind,
    describe_exit,
    host_init_path,
    sandbox_words,
)
from praxis_mcp.support.processes import OWNER_VARIABLE, Owner, SupervisedTree

LAUNCHER_PROBE_TIMEOUT = 4.0
"""Seconds for trying it out."""
MOST_LEAVING, FEW_LEAVING = 32, 2
"""Sandboxes whose calls are answered and that have not left yet; with as many as the first, a call waits for its own to
leave, and with fewer than the second, its own stays until the answer has gone out."""
PROBE_ATTEMPTS = 3
"""A trial that was killed, by the out-of-memory killer say, shows nothing of this machine; and what it decides stays
for the life of the server."""
LAUNCHER_PROCESSES = 1
"""The sandbox's init is in the run's group, and its limit must not pay for that."""

_EVERYBODY = ["0", "0", "4294967295"]
_LANDLOCK_CREATE_RULESET, _ASKS_FOR_VERSION, _HAS_SCOPES = 444, 1, 6


@dataclass(frozen=True, slots=True)
class OwnLauncher(Launcher):
    """praxis-init's sandbox form, where it works.

    Attributes:
        program: praxis-init.
        standbys: what stands by for calls whose sandbox is made for them; they are ended by whom they belong to.
    """

    name: ClassVar[str] = "praxis-init"

    program: str
    standbys: Standbys | None = field(default=None, compare=False)

    @property
    def shown(self) -> str:
        """See the base."""
        return self.name

    @property
    def keeps_off_abstract_sockets(self) -> bool:
        """See the base. By Landlock's scopes."""
        import ctypes  # for doctor alone

        return ctypes.CDLL(None).syscall(_LANDLOCK_CREATE_RULESET, None, 0, _ASKS_FOR_VERSION) >= _HAS_SCOPES

    @property
    def has_host_users(self) -> bool:
        """See the base. Not where this server is root of a user namespace that lacks some (user_namespaces(7))."""
        if os.geteuid() != 0:
            return False
        try:
            return all(Path("/proc/self", name).read_text().split() == _EVERYBODY for name in ("uid_map", "gid_map"))
        except OSError:
            return False

    async def run(
        self, plan: Plan, context: ExecutionContext, prepare: Prepare, cgroups: Cgroups, later: Later = None
    ) -> Finished:
        """See the base."""
        group = cgroups.for_run(plan, own_processes=LAUNCHER_PROCESSES)
        looked = anyio.Event()

        async def release() -> None:
            await looked.wait()  # the group alone tells that memory ran out
            await group.remove()

        with Reply() as reply:
            early = None
            if later is not None and len(later) < MOST_LEAVING:
                early = EarlyEnd(reply, later, release)
            has_ended = False
            try:
                async with context.collectors(plan) as streams:
                    end = await self._run_in(plan, context, prepare, group, streams, reply, early)
                    context.phases.enter(Phase.COLLECT)
                    out_of_memory = group.out_of_memory
                has_ended = True
            finally:
                looked.set()
                if early is None or not early.is_taken:
                    await group.remove(later if has_ended else None)  # of a call that is broken off nothing is left
        return Finished(replace(end, out_of_memory=out_of_memory), *streams.captured)

    async def why_no_layer(self, place: Path) -> str | None:
        """See the base."""
        return await _why_not(self.program, Step(StepKind.LAYERED_ROOT, "/", str(place), size=DEFAULT_SIZE))

    async def _run_in(
        self,
        plan: Plan,
        context: ExecutionContext,
        prepare: Prepare,
        group: RunGroup,
        streams: Streams,
        reply: Reply,
        early: EarlyEnd | None,
    ) -> Ended:
        fixed = plan.blueprint
        sandboxed = await prepare()
        with ExitStack() as standing, ExitStack() as held:
            held.callback(sandboxed.layout.close)
            standby = None
            # In a group of version 2 it would have to move, which takes a lock (`RunGroup.prefix`).
            is_blank = fixed.network is Network.NONE and sandboxed.memberships is None
            if self.standbys is not None and is_blank and not (group.unified and group.places):
                standby = standing.enter_context(self.standbys.hold(self.program, sandboxed.umask))
            # Until praxis-init has left, its mounts keep the file systems busy that they are of, one of which may be
            # unmounted or removed right behind the answer: only what has nothing but an image ends early.
            early = None if sandboxed.layout.descriptors else early
            # Where calls come one behind the other, each would be in the way of the next: they had better go at once.
            stays = early is not None and len(early.later) < FEW_LEAVING
            encode = partial(encode_sandbox, call=call_of(plan, sandboxed), stays=stays)
            descriptors = pack(plan, sandboxed, group, held, encode)

            def on_start() -> None:
                context.phases.enter(Phase.RUN)
                held.close()  # praxis-init has its own by now, and a call may last

            end = await _launch(
                self.program,
                descriptors,
                plan.call.run_id if standby is None else standby.ident,
                streams,
                reply,
                timeout=fixed.limits.timeout,
                stdin=plan.call.stdin,
                capture=fixed.capture_output,
                on_start=on_start,
                early=early,
                umask=sandboxed.umask,
                standby=standby,
            )
        if end.kind is EndKind.EXEC_FAILED:
            raise sandboxed.start_failure(end.reason)
        if end.kind is EndKind.SETUP_FAILED:
            raise setup_failure(plan, end, reply.why)
        return end


async def find_launcher(wanted: LauncherChoice, standbys: Standbys | None = None) -> Launcher | NoLauncher:
    """What makes sandboxes here, of what is wanted, with what may stand by for its calls; or why nothing does."""
    if sys.platform != "linux":
        return NoLauncher("sandboxes exist on Linux only", "Use Docker or Dagger.")
    if wanted == "bubblewrap":
        return await find_bubblewrap()
    own = await find_own_launcher()
    if not isinstance(own, NoLauncher):
        return replace(own, standbys=standbys)
    if wanted == "own":
        return own
    other = await find_bubblewrap()
    if isinstance(other, NoLauncher):
        return NoLauncher(f"praxis-init: {own.reason}; bubblewrap: {other.reason}", own.remedy)
    return other


async def find_own_launcher() -> OwnLauncher | NoLauncher:
    """See whether praxis-init can make sandboxes here, by making one: kernels, containers and AppArmor may refuse
    it."""
    init = host_init_path()
    if init is None:
        return NoLauncher("praxis-init is missing", "Install praxis-mcp so that praxis-init is built.")
    why = await _why_not(str(init), Step(StepKind.EMPTY_ROOT, "/"))
    return OwnLauncher(str(init)) if why is None else NoLauncher(why, namespace_remedy())


async def _why_not(program: str, root: Step) -> str | None:
    """Why no sandbox with such a root can be made; None where one can."""
    try:
        end, why = await _try_out(program, root)
        for _ in range(1, PROBE_ATTEMPTS):
            if end.exit_code != EXIT_KILLED:
                break
            end, why = await _try_out(program, root)
    except ExecutionError as exc:
        return exc.message
    if end.kind is EndKind.EXIT:
        return None if end.number == 0 else f"praxis-init ended with {describe_exit(end.number or 0)}"
    if end.timed_out:
        return f"no answer within {LAUNCHER_PROBE_TIMEOUT:g} s"
    return (why or f"{end.step or end.kind}: {end.reason}").rstrip(".")


async def _try_out(program: str, root: Step) -> tuple[Ended, str | None]:
    with ExitStack() as held:
        steps = (
            root,
            Step(StepKind.PROC, "/proc", makes_place=True),
            Step(StepKind.DEV, "/dev", makes_place=True, size=SHARED_MEMORY),
            Step(StepKind.BIND, "/praxis-init", program, makes_place=True),
        )
        mounts = list(mounts_of(steps, held))
        message = encode_sandbox(SandboxLayout(mounts, b"/"), WaitCall([b"/praxis-init", b"--version"]))
        descriptors = [hold_content(message, held), *descriptors_of(mounts)]
        reply = held.enter_context(Reply())
        async with StreamCollector("stdout", keep=4096) as out, StreamCollector("stderr", keep=4096) as err:
            end = await _launch(
                program,
                descriptors,
                f"probe{os.urandom(4).hex()}",
                Streams(out, err),
                reply,
                timeout=LAUNCHER_PROBE_TIMEOUT,
            )
            return end, reply.why


class Reply(ReportPipe):
    """What praxis-init says of a sandbox.

    Attributes:
        why: what it says of a failure; None where there was none.
    """

    def __init__(self) -> None:
        self.why: str | None = None
        self._end: Ended | None = None
        self._decoder = FrameDecoder()

    def is_complete(self) -> bool:
        """See the base.

        Raises:
            ExecutionError: praxis-init refuses the message, or this is not a reply.
        """
        return self.end() is not None

    def end(self) -> Ended | None:
        """How the command has ended, where that is known.

        Raises:
            ExecutionError: see `is_complete`.
        """
        try:
            for event in self._decoder.feed(self.read()):
                match event:
                    case Detail(text):
                        self.why = text
                    case Refused(reason):
                        raise ExecutionError(f"praxis-init refused to make a sandbox: {reason}.")
                    case Ended():
                        self._end = event
                    case _:
                        pass
        except FramingError as exc:
            raise ExecutionError(f"praxis-init said something that is not a reply: {exc}.") from exc
        return self._end


def init_launch(program: str, descriptors: Sequence[int], ident: str, reply: Reply | None = None) -> Launch:
    """praxis-init, to make a sandbox.

    Args:
        program: praxis-init.
        descriptors: see `pack`.
        ident: marks its processes.
        reply: says how that went; None for a sandbox that waits, which says so over its channel.
    """
    inherited = tuple(descriptors) if reply is None else (reply.write_end, *descriptors)
    words = sandbox_words(program, descriptors[0], reply=reply and reply.write_end, parent=os.getpid())
    env = {MARK: ident, OWNER_VARIABLE: str(Owner.current())}  # praxis-init's own, not the tool's
    return Launch(tuple(words), env, descriptors=inherited, own_session=False)


def init_tree(process: subprocess.Popen[bytes], ident: str) -> SupervisedTree:
    """What ends a praxis-init that was started so, and all of its sandbox."""
    return SupervisedTree(process, f"{MARK}={ident}")


async def _launch(
    program: str,
    descriptors: Sequence[int],
    ident: str,
    streams: Streams,
    reply: Reply,
    *,
    timeout: float,
    stdin: bytes | None = None,
    capture: bool = True,
    on_start: Callable[[], None] = lambda: None,
    early: EarlyEnd | None = None,
    umask: int | None = None,
    standby: Standby | None = None,
) -> Ended:
    """Run praxis-init; how the command ended.

    Raises:
        ExecutionError: praxis-init cannot be started, or refuses the message.
    """
    launch = init_launch(program, descriptors, ident, reply)
    become = None if standby is None else standby.become
    ended = await run_process(
        replace(launch, stdin=stdin, capture=capture, umask=umask, standby=become),
        lambda process: init_tree(process, ident),
        timeout=timeout,
        stdout=streams.stdout,
        stderr=streams.stderr,
        on_start=on_start,
        early=early,
    )
    reported = reply.end()
    return ended if ended.timed_out or reported is None else reported


def setup_failure(plan: Plan, end: Ended, why: str | None) -> ExecutionError:
    """The error for a sandbox that could not be made; `why` is what praxis-init says of it."""
    if end.step == MOUNTS_STEP or why is None:
        failure = end_failure(plan, end, remedy=namespace_remedy())
        assert failure is not None
        return failure
    return NotBegun(
        f"The sandbox for {plan.blueprint.tool} could not be made: {why}",
        remedy="Check the contract's mounts, or see what `praxis-mcp doctor` says about the engine.",
    )
